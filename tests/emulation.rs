//! The client protocol without WebSockets: what the client says by requests, what it is told on one long answer.

mod common;

use common::{
    Server, Stream,
    client::messages,
    http::{Reply, percent_encoded},
    server::JSON,
};
use serde_json::{Value, json};

const CONFIG: &str = "[limits]\nping_interval = \"1h\"\n";

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    HttpStream,
    Sse,
}

const BOTH: [Transport; 2] = [Transport::HttpStream, Transport::Sse];

struct Client<'a> {
    server: &'a Server,
    transport: Transport,
    stream: Stream,
    session: Value,
    node: Value,
}

impl<'a> Client<'a> {
    fn connect(server: &'a Server, transport: Transport) -> Self {
        let connect = json!({"id": 1, "connect": {}}).to_string();
        let stream = match transport {
            Transport::HttpStream => {
                Stream::ask(server, "POST", "/connection/http_stream", &[JSON], &connect)
            }
            Transport::Sse => {
                let path = format!("/connection/sse?cf_connect={}", percent_encoded(&connect));
                Stream::ask(server, "GET", &path, &[], "")
            }
        };
        assert_eq!(stream.head.status, 200);
        let mut client = Self {
            server,
            transport,
            stream,
            session: Value::Null,
            node: Value::Null,
        };
        if transport == Transport::Sse {
            assert_eq!(client.stream.line().as_deref(), Some("\r"), "open at once");
        }
        let reply = client.next();
        client.session = reply["connect"]["session"].clone();
        client.node = reply["connect"]["node"].clone();
        assert!(
            client
                .session
                .as_str()
                .is_some_and(|secret| secret.len() >= 32),
            "{reply}"
        );
        client
    }

    /// The next message; `None` at the end.
    fn message(&mut self) -> Option<Value> {
        let line = self.stream.line()?;
        let message = match self.transport {
            Transport::HttpStream => line,
            Transport::Sse => {
                assert_eq!(
                    self.stream.line().as_deref(),
                    Some(""),
                    "an event a message"
                );
                line.strip_prefix("data: ")
                    .expect("unnamed events")
                    .to_owned()
            }
        };
        Some(messages(&message).remove(0))
    }

    fn next(&mut self) -> Value {
        self.message().expect("the stream goes on")
    }

    fn say(&self, commands: &str) -> Reply {
        let body = json!({"session": self.session, "node": self.node, "data": commands});
        self.server.post("/emulation", &[JSON], body.to_string())
    }
}

#[test]
fn a_client_speaks_by_requests_and_is_told_on_its_stream() {
    let server = Server::start(CONFIG);
    for transport in BOTH {
        let mut client = Client::connect(&server, transport);
        let first = server.publish("lobby", "\"é\"");
        let two = [
            json!({"id": 2, "subscribe": {"channel": "lobby", "recover": true, "epoch": first.epoch,
                "offset": first.offset - 1}}),
            json!({"id": 3, "presence": {"channel": "lobby"}}),
        ];
        let said = client.say(&two.map(|command| command.to_string()).join("\n"));
        assert_eq!((said.status, said.body.len()), (204, 0));
        let mut replies = [client.next(), client.next()];
        replies.sort_by_key(|reply| reply["id"].as_u64());
        assert_eq!(replies[0]["subscribe"]["recovered"], true);
        assert_eq!(replies[0]["subscribe"]["publications"][0]["data"], "é");
        assert_eq!(replies[1]["error"]["code"], 108);
        let next = server.publish_numbers("lobby", 0, 50);
        for entry in next {
            assert_eq!(client.next()["push"]["pub"]["offset"], entry.offset);
        }
    }
}

#[test]
fn a_client_that_hangs_up_is_noticed_at_once() {
    let server = Server::start(CONFIG);
    for (transport, name) in BOTH.into_iter().zip(["sdk_http_stream", "sdk_sse"]) {
        let open = format!("roomwire_sessions{{transport=\"{name}\"}}");
        let clients: Vec<_> = (0..20)
            .map(|_| Client::connect(&server, transport))
            .collect();
        server.await_metric(&open, 20.0);
        drop(clients);
        server.await_metric(&open, 0.0);
    }
}

#[test]
fn a_client_that_does_not_answer_pings_is_closed() {
    let server = Server::start("[limits]\nping_interval = \"1s\"\npong_timeout = \"500ms\"\n");
    let mut client = Client::connect(&server, Transport::HttpStream);
    while client.message().is_some() {}
    server.await_metric("roomwire_sessions_closed_total{code=\"3012\"}", 1.0);
    let mut client = Client::connect(&server, Transport::HttpStream);
    for _ in 0..4 {
        assert_eq!(client.next(), json!({}));
        assert_eq!(client.say("{}").status, 204);
    }
}

#[test]
fn the_end_of_a_session_is_told_as_a_message() {
    let mut server = Server::start(CONFIG);
    for transport in BOTH {
        let mut client = Client::connect(&server, transport);
        client.say("no JSON");
        let disconnect = client.next()["push"]["disconnect"].clone();
        assert_eq!(disconnect, json!({"code": 3501, "reason": "bad request"}));
        assert_eq!(client.message(), None);
    }
    let streams = BOTH.map(|transport| {
        let Client { stream, .. } = Client::connect(&server, transport);
        stream
    });
    assert!(server.stop().success());
    for mut stream in streams {
        let mut told = String::new();
        while let Some(line) = stream.line() {
            told += &line;
        }
        assert!(
            told.contains("{\"code\":3001,\"reason\":\"shutdown\"}"),
            "{told}"
        );
    }
}

#[test]
fn what_belongs_to_no_session_is_told_so() {
    let server = Server::start(CONFIG);
    let mut client = Client::connect(&server, Transport::HttpStream);
    let post = |body: Value| server.post("/emulation", &[JSON], body.to_string()).status;
    let other = "00000000-0000-4000-8000-000000000000";
    let data = "{}";
    assert_eq!(
        post(json!({"session": client.session, "node": other, "data": data})),
        404
    );
    assert_eq!(
        post(json!({"session": client.session, "node": "", "data": data})),
        404
    );
    // Its stream may have ended while the request was under way.
    assert_eq!(
        post(json!({"session": other, "node": client.node, "data": data})),
        204
    );
    assert_eq!(post(json!({"session": client.session})), 400);
    let long = "x".repeat(256 * 1024 + 1);
    assert_eq!(
        post(json!({"session": client.session, "node": client.node, "data": long})),
        413
    );
    assert_eq!(server.get("/emulation").status, 405);
    assert_eq!(server.get("/connection/http_stream").status, 405);
    assert_eq!(server.get("/connection/sse").status, 400);
    client.say(&json!({"id": 5, "unsubscribe": {"channel": "a"}}).to_string());
    assert_eq!(client.next()["id"], 5, "it is still there");
}
