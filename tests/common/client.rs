//! A client of the JSON protocol that checks the form of all that it gets.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{
    Server, View,
    socket::{CLOSE, PING, PONG, Socket, TEXT, close_of},
};

pub struct Client {
    pub socket: Socket,
    /// The server's name for this connection.
    pub id: String,
    next_command: u64,
    /// Messages of frames already read, pushes that came before a reply included.
    waiting: VecDeque<Value>,
}

impl Client {
    /// A socket on which nothing was said yet.
    pub fn open(server: &Server) -> Self {
        Self::on(Socket::open(server.address()))
    }

    /// A socket that was opened in a way of its own.
    pub fn on(socket: Socket) -> Self {
        Self {
            socket,
            id: String::new(),
            next_command: 1,
            waiting: VecDeque::new(),
        }
    }

    /// A connected client.
    pub fn connect(server: &Server) -> Self {
        let mut client = Self::open(server);
        let result = client.result("connect", json!({}));
        client.id = result["client"].as_str().expect("a client id").into();
        client
    }

    /// Sends a line as it is: one or more commands.
    pub fn send(&mut self, line: impl ToString) {
        self.socket.send_text(&line.to_string());
    }

    /// Sends one command and gives its whole reply; pushes that come before it stay to be read.
    pub fn ask(&mut self, command: &str, request: Value) -> Value {
        let id = self.next_command;
        self.next_command += 1;
        self.send(json!({"id": id, command: request}));
        self.reply(id)
    }

    /// The reply to the command with this id.
    pub fn reply(&mut self, id: u64) -> Value {
        let mut earlier = VecDeque::new();
        loop {
            let message = self.next_message();
            if message["id"] == id {
                earlier.append(&mut self.waiting);
                self.waiting = earlier;
                return message;
            }
            earlier.push_back(message);
        }
    }

    /// As [`Client::ask`], for what must succeed: gives the result.
    pub fn result(&mut self, command: &str, request: Value) -> Value {
        let reply = self.ask(command, request);
        assert!(reply[command].is_object(), "{command}: {reply}");
        reply[command].clone()
    }

    /// As [`Client::ask`], for what must fail: gives the error's code.
    pub fn error(&mut self, command: &str, request: Value) -> u64 {
        let reply = self.ask(command, request);
        let code = reply["error"]["code"].as_u64();
        code.unwrap_or_else(|| panic!("{command} did not fail: {reply}"))
    }

    pub fn subscribe(&mut self, room: &str) -> Value {
        self.result("subscribe", json!({"channel": room, "recoverable": true}))
    }

    /// Asks for what was missed since a position.
    pub fn recover(&mut self, room: &str, offset: u64, epoch: &str) -> Value {
        let request = json!({"channel": room, "recoverable": true, "recover": true,
            "offset": offset, "epoch": epoch});
        self.result("subscribe", request)
    }

    /// Joins the view's room, or comes back to it at the view's position.
    pub fn follow(&mut self, view: &mut View) -> Value {
        let result = if view.joined() {
            self.recover(&view.room, view.offset, &view.epoch)
        } else {
            self.subscribe(&view.room)
        };
        view.subscribed(&result);
        result
    }

    /// Reads until the view has `count` deltas; other messages than its publications must not come.
    pub fn read_into(&mut self, view: &mut View, count: usize) {
        let mut have = view.deltas().count();
        while have < count {
            let (room, publication) = self.publication();
            assert_eq!(room, view.room);
            view.publication(&publication);
            have += 1;
        }
    }

    /// The next message, which must be a publication: its room and itself.
    pub fn publication(&mut self) -> (String, Value) {
        let push = self.push();
        let room = push["channel"].as_str().expect("a room");
        assert!(push["pub"].is_object(), "no publication: {push}");
        (room.into(), push["pub"].clone())
    }

    /// The next message, which must be a push.
    pub fn push(&mut self) -> Value {
        let message = self.next_message();
        assert!(message["push"].is_object(), "no push: {message}");
        message["push"].clone()
    }

    /// The next message; pings are answered on the way.
    pub fn next_message(&mut self) -> Value {
        loop {
            while let Some(message) = self.waiting.pop_front() {
                if message != json!({}) {
                    return message;
                }
                self.send("{}");
            }
            self.read_frame();
        }
    }

    /// Messages of frames that were read while a reply was awaited.
    pub fn take_waiting(&mut self) -> Vec<Value> {
        self.waiting.drain(..).collect()
    }

    /// Reads one frame; its messages wait to be taken.
    fn read_frame(&mut self) {
        let frame = self.socket.read();
        match frame.opcode {
            TEXT => {
                assert!(frame.fin, "the server does not fragment");
                self.waiting.extend(messages(frame.text()));
            }
            PING | PONG => {}
            CLOSE => panic!("closed unexpectedly: {:?}", close_of(&frame)),
            other => panic!("a frame with opcode {other}"),
        }
    }

    /// Code and reason of the close that must come; messages before it are passed over.
    pub fn closed(&mut self) -> (u16, String) {
        self.socket.read_close()
    }

    /// Says something that must not be answered by an end of the connection, and sees that it goes
    /// on.
    pub fn is_alive(&mut self) {
        self.result("unsubscribe", json!({"channel": "nowhere"}));
    }
}

/// The messages of one frame, each checked for what makes SDKs fail.
pub fn messages(frame: &str) -> Vec<Value> {
    let lines = frame.strip_suffix('\n').unwrap_or(frame).split('\n');
    let message = |line: &str| {
        let message: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("no JSON on one line ({error}): {line:?}"));
        assert_well_formed(&message);
        message
    };
    lines.map(message).collect()
}

fn assert_well_formed(message: &Value) {
    let fields = message.as_object().expect("a message is an object");
    assert_no_null(message);
    if fields.is_empty() {
        return;
    }
    if let Some(push) = fields.get("push") {
        // These two are about the whole session.
        let of_session = |named: &str| !push[named].is_null();
        assert!(
            !push["channel"].is_null() || ["message", "disconnect"].into_iter().any(of_session)
        );
        for named in ["join", "leave"] {
            if let Some(body) = push.get(named) {
                assert!(body["info"]["client"].is_string(), "{message}");
                assert!(body["info"]["user"].is_string(), "{message}");
            }
        }
        for named in ["unsubscribe", "disconnect"] {
            if let Some(body) = push.get(named) {
                assert!(
                    body["code"].is_u64() && body["reason"].is_string(),
                    "{message}"
                );
            }
        }
        return;
    }
    assert!(fields["id"].as_u64().is_some_and(|id| id > 0), "{message}");
    assert_eq!(fields.len(), 2, "one result or one error: {message}");
    if let Some(error) = fields.get("error") {
        assert!(error["code"].is_u64(), "{message}");
        assert!(error["message"].is_string(), "{message}");
    }
}

/// `null` for a list or map ends some SDKs; what applications publish may hold it.
fn assert_no_null(value: &Value) {
    match value {
        Value::Null => panic!("a null in a message"),
        Value::Array(items) => items.iter().for_each(assert_no_null),
        Value::Object(fields) => {
            let protocol = fields.iter().filter(|(name, _)| *name != "data");
            protocol.for_each(|(_, value)| assert_no_null(value));
        }
        _ => {}
    }
}
