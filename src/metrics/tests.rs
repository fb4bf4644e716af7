use std::collections::BTreeSet;

use super::*;

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

#[test]
fn the_table_lists_every_figure_that_is_rendered() {
    let metrics = Metrics::new();
    metrics.session_closed(Transport::WebSocket, Closing::Server(3008));
    metrics.connection_refused("full");
    metrics.large_delta("chat");
    metrics.log(0, &LogStatus::default());
    metrics.ingress(&Figures::default());

    let rendered: BTreeSet<String> = metrics
        .registry
        .gather()
        .iter()
        .map(|family| {
            let metric = &family.get_metric()[0];
            let labels: Vec<_> = metric
                .get_label()
                .iter()
                .map(|label| label.name())
                .collect();
            match labels.as_slice() {
                [] => family.name().to_owned(),
                labels => format!("{}{{{}}}", family.name(), labels.join(",")),
            }
        })
        .collect();
    let told: BTreeSet<String> = include_str!("../metrics.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .filter_map(|row| Some(row.split_once('`')?.0.to_owned()))
        .collect();
    assert_eq!(rendered, told);
}

#[test]
fn figures_with_a_known_label_are_zero_before_anything_happens() {
    let text = Metrics::new().render();
    for series in [
        "roomwire_sessions{transport=\"websocket\"}",
        "roomwire_sessions_closed_total{code=\"client\"}",
        "roomwire_deltas_in_total{result=\"applied\"}",
        "roomwire_deltas_in_total{result=\"repeated\"}",
        "roomwire_deltas_in_total{result=\"not_taken\"}",
        "roomwire_deltas_in_total{result=\"unknown\"}",
        "roomwire_deltas_in_total{result=\"no_space\"}",
        "roomwire_replays_total{result=\"hit\"}",
        "roomwire_replays_total{result=\"miss\"}",
        "roomwire_deltas_out_total",
        "roomwire_publish_seconds_count",
    ] {
        assert_eq!(value(&text, series), Some(0.0), "{series}");
    }
    let version = format!(
        "roomwire_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(&text, &version), Some(1.0));
}

#[test]
fn clones_count_into_the_same_figures_and_two_servers_do_not() {
    let (metrics, other) = (Metrics::new(), Metrics::new());
    let clone = metrics.clone();
    metrics.delivered(1000);
    clone.delivered(1);
    clone.deltas_in(Intake::Repeated, 3);
    let text = metrics.render();
    assert_eq!(value(&text, "roomwire_deltas_out_total"), Some(1001.0));
    assert_eq!(
        value(&text, "roomwire_deltas_in_total{result=\"repeated\"}"),
        Some(3.0)
    );
    assert_eq!(
        value(&other.render(), "roomwire_deltas_out_total"),
        Some(0.0)
    );
}

#[test]
fn a_session_that_ends_is_no_longer_open_and_is_counted_by_its_code() {
    let metrics = Metrics::new();
    metrics.session_opened(Transport::WebSocket);
    metrics.session_opened(Transport::WebSocket);
    metrics.session_opened(Transport::WebSocket);
    metrics.session_closed(Transport::WebSocket, Closing::Server(3001));
    metrics.session_closed(Transport::WebSocket, Closing::Client);
    let text = metrics.render();
    assert_eq!(
        value(&text, "roomwire_sessions{transport=\"websocket\"}"),
        Some(1.0)
    );
    assert_eq!(value(&text, "roomwire_sessions_opened_total"), Some(3.0));
    assert_eq!(
        value(&text, "roomwire_sessions_closed_total{code=\"3001\"}"),
        Some(1.0)
    );
    assert_eq!(
        value(&text, "roomwire_sessions_closed_total{code=\"client\"}"),
        Some(1.0)
    );
}

#[test]
fn a_shared_logs_figures_are_by_partition_and_its_totals_never_fall() {
    let metrics = Metrics::new();
    let status = |confirmed, seconds| LogStatus {
        connected: true,
        behind: 7,
        lag: Duration::from_millis(1_500),
        confirmed,
        confirm_time: Duration::from_secs(seconds),
        ..LogStatus::default()
    };
    metrics.log(3, &status(10, 2));
    metrics.log(3, &status(4, 1));
    let text = metrics.render();
    for (name, expected) in [
        ("connected", 1.0),
        ("behind", 7.0),
        ("lag_seconds", 1.5),
        ("confirms_total", 10.0),
        ("confirm_seconds_total", 2.0),
    ] {
        let series = format!("roomwire_log_{name}{{partition=\"3\"}}");
        assert_eq!(value(&text, &series), Some(expected), "{series}");
    }
}

#[test]
fn latencies_are_in_seconds_and_fall_into_their_buckets() {
    let metrics = Metrics::new();
    metrics.publish_took(Duration::from_micros(700));
    metrics.delivery_took(Duration::from_millis(4));
    let text = metrics.render();
    let publish = |bound| {
        value(
            &text,
            &format!("roomwire_publish_seconds_bucket{{le=\"{bound}\"}}"),
        )
    };
    assert_eq!(
        (publish("0.0005"), publish("0.001")),
        (Some(0.0), Some(1.0))
    );
    let delivery = |bound| {
        value(
            &text,
            &format!("roomwire_delivery_seconds_bucket{{le=\"{bound}\"}}"),
        )
    };
    assert_eq!(
        (delivery("0.003"), delivery("0.005")),
        (Some(0.0), Some(1.0))
    );
    assert_eq!(value(&text, "roomwire_publish_seconds_sum"), Some(0.0007));
}
