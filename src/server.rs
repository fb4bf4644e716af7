//! The composition root: which parts a server is made of, and in which order they start and stop.

mod catching_up;
mod logs;
mod presence;
mod taking_in;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use actix_codec::Framed;
use actix_http::{HttpService, Request, h1::Codec};
use actix_rt::net::TcpStream;
use actix_server::ServerHandle;
use actix_service::{ServiceFactoryExt, fn_service, map_config};
use actix_web::{App, dev::AppConfig, middleware::from_fn, web::Data};
use futures_util::future::{OptionFuture, join, ready, select_all};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use self::logs::Logs;
pub use self::logs::amqp_settings;
use crate::{
    access::{Access, keyset::KeyFileError},
    actors::{
        Others, Services,
        dispatch::RoomDispatch,
        hub::{Hub, Hubs},
        life::Life,
        presence::Presence,
        registry::Registry,
    },
    amqp::{self, ingress::Ingress},
    config::{Config, Namespaces},
    http::{
        connection::Connection,
        origin,
        reading::Reading,
        routes::{self, State},
        websocket::{self, Sockets},
    },
    log::{
        pipeline::{End, Parts, Pipeline, PipelineHandle, Rules},
        publisher::Publisher,
        publishers::Publishers,
    },
    metrics::Metrics,
    protocol::{codes::Disconnect, format::Format},
    rooms::{retention::Retention, store::StoreError},
};

/// How long sessions have to take their close, at a stop.
const DRAIN: Duration = Duration::from_secs(4);

/// Seconds that requests under way have to end, at a stop.
const REQUESTS: u64 = 2;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't create the data directory {path}")]
    DataDirectory { path: PathBuf, source: io::Error },
    #[error("can't open the database in {path}")]
    Database { path: PathBuf, source: StoreError },
    #[error("can't listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("can't use the keys for tokens")]
    Keys(#[from] KeyFileError),
    #[error("can't start")]
    Threads(#[from] io::Error),
    #[error("can't use the log on RabbitMQ")]
    Amqp(#[from] amqp::cluster::StartError),
    #[error("can't start: a thread failed")]
    Panicked,
}

/// A server that accepts connections.
pub struct Server {
    address: SocketAddr,
    http: actix_server::Server,
    handle: ServerHandle,
    services: Arc<Services>,
    life: Arc<Life>,
    pipelines: Vec<PipelineHandle>,
    ingress: Option<Ingress>,
}

impl Server {
    /// Binds the address, opens the database and the log, starts the pipelines. Runs on an actix system.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let listener = listen(config.server.listen)?;
        let address = listener.local_addr()?;
        let Logs {
            partitions,
            patience,
            cluster,
        } = logs::open(&config).await?;
        let rules: Rules = Arc::new(retention(config.namespaces.clone()));
        let registry = Arc::new(Registry::default());
        let count = u16::try_from(partitions.len()).expect("partitions are numbered by u16");
        let (mut logs, mut publishers, mut pipelines) = (Vec::new(), Vec::new(), Vec::new());
        let mut history = None;
        for (partition, (log, writer)) in (0..).zip(partitions) {
            let publisher = Publisher::new(log.clone(), patience);
            history.get_or_insert_with(|| writer.history());
            pipelines.push(Pipeline::new(Parts {
                log: log.clone(),
                writer,
                rules: rules.clone(),
                answers: publisher.answers(),
                dispatch: Box::new(RoomDispatch::new(registry.clone(), partition, count)?),
                reserve_bytes: config.storage.reserve,
            }));
            logs.push(log);
            publishers.push(publisher);
        }
        let metrics = Metrics::new();
        let settings = presence::settings(&config, cluster.is_some());
        let presence = Arc::new(Presence::new(settings, config.namespaces.clone()));
        let has_events = settings.user_events || config.namespaces.have_events();
        let (others, notifier) = match &cluster {
            Some(cluster) => {
                let listener = presence::Listens {
                    presence: presence.clone(),
                    registry: registry.clone(),
                    metrics: metrics.clone(),
                };
                let bus = Box::new(cluster.bus(Arc::new(listener))) as Box<dyn Others>;
                (Some(bus), has_events.then(|| cluster.notifier()))
            }
            None => {
                if config.presence.user_events || has_events {
                    warn!("there are no events for the backend without amqp.url");
                }
                (None, None)
            }
        };
        let tenures = pipelines.iter().map(|of| of.watch().tenure).collect();
        let services = Arc::new(Services {
            history: history.expect("a log has a partition"),
            publisher: Publishers::new(publishers),
            logs,
            registry,
            hubs: Hubs::default(),
            dispatched: pipelines.iter().map(|of| of.watch().dispatched).collect(),
            presence,
            others,
            metrics,
            large_deltas: Default::default(),
            ingress: cluster.is_some().then(Arc::default),
            namespaces: config.namespaces,
            access: Access::open(&config.access, &config.keys, config.server.dev)?,
            limits: config.limits,
            publish: config.publish,
            rooms: config.rooms,
        });
        let pipelines: Vec<_> = pipelines
            .into_iter()
            .map(Pipeline::spawn)
            .collect::<Result<_, _>>()?;
        let life = Arc::new(match &cluster {
            Some(_) => Life::catching_up(),
            None => Life::default(),
        });
        let ingress = cluster.map(|cluster| {
            let (begin, begun) = oneshot::channel();
            actix_rt::spawn(catching_up::run(services.clone(), life.clone(), begin));
            taking_in::start(&cluster, &services, tenures, begun)
        });
        actix_rt::spawn(presence::run(services.clone(), notifier));
        let state = Arc::new(State {
            services: services.clone(),
            life: life.clone(),
            http: config.http,
            dev: config.server.dev,
            emulations: Arc::default(),
        });
        let http = serve(listener, config.server.workers, state)?;
        Ok(Self {
            address,
            handle: http.handle(),
            http,
            services,
            life,
            pipelines,
            ingress,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` resolves, then ends everything in order: refuse, close sessions, end what was accepted,
    /// flush. An error is a pipeline that ended though nobody stopped it.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let serving = actix_rt::spawn(self.http);
        let failed = select_all(self.pipelines.iter_mut().map(|of| Box::pin(of.ended())));
        let outcome = tokio::select! {
            () = stop => Ok(()),
            () = self.services.hubs.failed() => {
                self.life.fail();
                Err(io::Error::other("a hub failed"))
            }
            _ = failed => {
                error!("a pipeline has ended; what it has read can't be delivered any more");
                self.life.fail();
                Err(io::Error::other("a pipeline ended unexpectedly"))
            }
        };
        info!(sessions = self.life.sessions(), "stopping");
        self.life.drain();
        // The listener stays open meanwhile: whoever comes is told to go elsewhere.
        self.services.hubs.close_all(Disconnect::SHUTDOWN);
        let taking_in = OptionFuture::from(self.ingress.take().map(Ingress::stop));
        if !join(sessions_end(&self.life), taking_in).await.0 {
            warn!(
                sessions = self.life.sessions(),
                "sessions did not take their close"
            );
        }
        presence::say_goodbye(&self.services).await;
        self.services.logs.iter().for_each(|log| log.close());
        let pipelines = self.pipelines;
        let join_all =
            move || -> Vec<End> { pipelines.into_iter().map(PipelineHandle::join).collect() };
        let joined = actix_rt::task::spawn_blocking(join_all).await;
        if !joined.is_ok_and(|ends| ends.iter().all(|end| *end == End::Closed)) {
            error!("a pipeline failed");
        }
        self.handle.stop(true).await;
        let _ = serving.await;
        info!("stopped");
        outcome
    }
}

async fn sessions_end(life: &Life) -> bool {
    let ended = async {
        while life.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DRAIN, ended).await.is_ok()
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        // A server that was just stopped leaves connections behind that wait for their end.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|source| StartError::Listen { address, source })
}

fn retention(namespaces: Namespaces) -> impl Fn(&crate::delta::RoomName) -> Retention {
    move |room| {
        // A namespace that was taken out of the configuration keeps its rooms as the default one does.
        let history = namespaces
            .of(room)
            .map_or_else(|_| namespaces.default_namespace().history, |n| n.history);
        Retention {
            size: history.size,
            ttl_ms: history.ttl.as_millis() as u64,
            bytes: history.bytes,
        }
    }
}

fn serve(
    listener: TcpListener,
    workers: usize,
    state: Arc<State>,
) -> io::Result<actix_server::Server> {
    let server = actix_server::Server::build()
        .workers(workers)
        .disable_signals()
        .shutdown_timeout(REQUESTS)
        .listen("http", listener, move || {
            let services = &state.services;
            let hub = |format| {
                let metrics = services.metrics.clone();
                Hub::start(format, &services.hubs, &services.limits, metrics)
            };
            let reading = Reading {
                events: hub(Format::Events),
                frames: hub(Format::JSON),
            };
            let sockets = Sockets {
                json: reading.frames.clone(),
                protobuf: hub(Format::PROTOBUF),
            };
            let app = App::new()
                .app_data(Data::from(state.clone()))
                .app_data(reading)
                .wrap(from_fn(origin::guard))
                .configure(routes::configure);
            let state = state.clone();
            let upgrade = fn_service(
                move |(request, connection): (Request, Framed<Connection, Codec>)| {
                    websocket::upgrade(request, connection, state.clone(), sockets.clone())
                },
            );
            let http = HttpService::build()
                // A client that is gone is noticed at once, also while nothing is written to it.
                .h1_allow_half_closed(false)
                .on_connect_ext(|connection: &Connection, data| {
                    data.insert(connection.cut());
                })
                .upgrade(upgrade)
                .h1(map_config(app, |_| AppConfig::default()));
            let accept = fn_service(|io: TcpStream| {
                let peer = io.peer_addr().ok();
                ready(Ok((Connection::new(io), peer)))
            });
            accept.and_then(http)
        })?;
    Ok(server.run())
}
