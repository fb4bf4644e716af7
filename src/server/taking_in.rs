//! Taking in what other producers publish to the broker.

use tokio::sync::{oneshot, watch};

use crate::{
    actors::Services,
    amqp::{
        cluster::Cluster,
        ingress::{Ingress, Parts, message::Rules},
    },
};

/// Takes in, as one of the cluster's instances, once `begin` says so.
pub fn start(
    cluster: &Cluster,
    services: &Services,
    tenures: Vec<watch::Receiver<Option<u128>>>,
    begin: oneshot::Receiver<()>,
) -> Ingress {
    let publish = &services.publish;
    let parts = Parts {
        publishers: services.publisher.clone(),
        logs: services.logs.clone(),
        tenures,
        rules: Rules {
            max_delta_bytes: publish.max_delta_bytes,
            max_rooms: publish.max_batch,
            max_total_bytes: publish.max_batch_bytes,
            namespaces: services.namespaces.clone(),
        },
        metrics: services.metrics.clone(),
        status: services.ingress.clone().unwrap_or_default(),
    };
    cluster.take_in(parts, begin)
}
