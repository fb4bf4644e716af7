//! An HTTP server for tests: gives prepared answers in turn and keeps what it was asked.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::client::address::ServerUrl;

#[derive(Debug, Clone)]
pub struct Request {
    /// Request line and headers, as they came.
    pub head: String,
    pub body: String,
}

/// Refusals carry `Retry-After: 1`. Once its answers are used up, it hangs up.
pub struct FakeServer {
    url: ServerUrl,
    requests: Rc<RefCell<Vec<Request>>>,
}

impl FakeServer {
    pub async fn start<B: Into<String>>(answers: impl IntoIterator<Item = (u16, B)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self {
            url: url.parse().unwrap(),
            requests: Rc::default(),
        };
        let requests = server.requests.clone();
        let answers = answers
            .into_iter()
            .map(|(status, body)| (status, body.into()));
        let mut answers: VecDeque<(u16, String)> = answers.collect();
        actix_rt::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                while let Some(request) = read(&mut stream).await {
                    requests.borrow_mut().push(request);
                    let Some((status, body)) = answers.pop_front() else {
                        break;
                    };
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        server
    }

    pub fn url(&self) -> ServerUrl {
        self.url.clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = format!("{head}\r\n");
            let length: usize = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, length)| length.parse().unwrap());
            if body.len() >= length {
                let body = body.to_owned();
                return Some(Request { head, body });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
