//! The composition root: which parts a server is made of, and in which order they start and stop.

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
use actix_service::{fn_service, map_config};
use actix_web::{App, dev::AppConfig, middleware::from_fn, web::Data};
use tracing::{error, info, warn};

use crate::{
    actors::{
        Services,
        dispatch::RoomDispatch,
        hub::{Hub, Hubs},
        life::Life,
        registry::Registry,
    },
    config::{Config, Namespaces},
    http::{
        routes::{self, State},
        websocket,
    },
    log::{
        OrderedLog,
        embedded::{EmbeddedLog, QueueBounds},
        pipeline::{End, Parts, Pipeline, PipelineHandle},
        publisher::Publisher,
    },
    metrics::Metrics,
    protocol::codes::Disconnect,
    rooms::{
        retention::Retention,
        store::StoreError,
        store_sled::SledStore,
        writer::{HistorySettings, HistoryWriter},
    },
};

/// How long a publish waits for the disk before its outcome counts as unknown.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);

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
    #[error("can't start")]
    Threads(#[from] io::Error),
}

/// A server that accepts connections.
pub struct Server {
    address: SocketAddr,
    http: actix_server::Server,
    handle: ServerHandle,
    services: Arc<Services>,
    life: Arc<Life>,
    log: Arc<dyn OrderedLog>,
    pipeline: PipelineHandle,
}

impl Server {
    /// Opens the database, starts the pipeline, binds the address. Runs on an actix system.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let listener = listen(config.server.listen)?;
        let address = listener.local_addr()?;
        let writer = open_database(&config)?;
        let log: Arc<dyn OrderedLog> = Arc::new(embedded_log(&config, &writer));
        let publisher = Publisher::new(log.clone(), PUBLISH_PATIENCE);
        let registry = Arc::new(Registry::default());
        let history = writer.history();
        let pipeline = Pipeline::new(Parts {
            log: log.clone(),
            writer,
            rules: Arc::new(retention(config.namespaces.clone())),
            answers: publisher.answers(),
            dispatch: Box::new(RoomDispatch::new(registry.clone())?),
            reserve_bytes: config.storage.reserve,
        });
        let services = Arc::new(Services {
            history,
            publisher,
            registry,
            hubs: Hubs::default(),
            dispatched: pipeline.watch().dispatched,
            metrics: Metrics::new(),
            namespaces: config.namespaces,
            limits: config.limits,
            publish: config.publish,
            rooms: config.rooms,
        });
        let pipeline = pipeline.spawn()?;
        let life = Arc::new(Life::default());
        let state = Arc::new(State {
            services: services.clone(),
            life: life.clone(),
            http: config.http,
            dev: config.server.dev,
        });
        let http = serve(listener, config.server.workers, state)?;
        Ok(Self {
            address,
            handle: http.handle(),
            http,
            services,
            life,
            log,
            pipeline,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` resolves, then ends everything in order: refuse, close sessions, end what was accepted,
    /// flush. An error is a pipeline that ended though nobody stopped it.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let serving = actix_rt::spawn(self.http);
        let failed = self.pipeline.ended();
        let outcome = tokio::select! {
            () = stop => Ok(()),
            _ = failed => {
                error!("the pipeline has ended; nothing can be published any more");
                self.life.fail();
                Err(io::Error::other("the pipeline ended unexpectedly"))
            }
        };
        info!(sessions = self.life.sessions(), "stopping");
        self.life.drain();
        // The listener stays open meanwhile: whoever comes is told to go elsewhere.
        self.services.hubs.close_all(Disconnect::SHUTDOWN);
        if !sessions_end(&self.life).await {
            warn!(
                sessions = self.life.sessions(),
                "sessions did not take their close"
            );
        }
        self.log.close();
        let pipeline = self.pipeline;
        let joined = actix_rt::task::spawn_blocking(move || pipeline.join()).await;
        if !matches!(joined, Ok(End::Closed)) {
            error!("the pipeline failed");
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

fn open_database(config: &Config) -> Result<HistoryWriter, StartError> {
    let data = &config.server.data;
    std::fs::create_dir_all(data).map_err(|source| StartError::DataDirectory {
        path: data.clone(),
        source,
    })?;
    let path = data.join("log");
    let window = config.publish.idempotency_window.as_millis() as u64;
    let settings = HistorySettings {
        idempotency_window_ms: window,
    };
    SledStore::open(&path, config.storage.cache)
        .and_then(|store| HistoryWriter::open(Arc::new(store), settings))
        .map_err(|source| StartError::Database { path, source })
}

fn embedded_log(config: &Config, writer: &HistoryWriter) -> EmbeddedLog {
    let bounds = QueueBounds {
        records: config.publish.queue_records,
        bytes: config.publish.queue_bytes,
    };
    EmbeddedLog::new(writer.checkpoint() + 1, bounds)
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
            let hub = Hub::start(&services.hubs, &services.limits, services.metrics.clone());
            let app = App::new()
                .app_data(Data::from(state.clone()))
                .wrap(from_fn(routes::check_origin))
                .configure(routes::configure);
            let state = state.clone();
            let upgrade = fn_service(
                move |(request, connection): (Request, Framed<TcpStream, Codec>)| {
                    websocket::upgrade(request, connection, state.clone(), hub.clone())
                },
            );
            HttpService::build()
                .upgrade(upgrade)
                .h1(map_config(app, |_| AppConfig::default()))
                .tcp()
        })?;
    Ok(server.run())
}
