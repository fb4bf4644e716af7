//! What RabbitMQ's management API knows and AMQP does not tell: who leads a stream.

use std::time::Duration;

use awc::{Client, http::Uri};
use serde::Deserialize;

const PATIENCE: Duration = Duration::from_secs(5);

/// RabbitMQ's management API.
pub struct Management {
    client: Client,
    base: String,
}

/// Where the replicas of a stream are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Replicas {
    pub leader: Option<String>,
    /// Nodes whose replica is up.
    #[serde(default)]
    pub online: Vec<String>,
    /// Nodes that have a replica.
    #[serde(default)]
    pub members: Vec<String>,
}

impl Management {
    /// `url` is like `http://user:password@host:15672`.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        // The URL holds a password, so it is in no message.
        let bad = "--management-url is like http://user:password@host:15672, without TLS";
        let uri: Uri = url.parse().map_err(|_| anyhow::anyhow!(bad))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or_else(|| anyhow::anyhow!(bad))?.as_str();
        let (userinfo, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut client = Client::builder().timeout(PATIENCE);
        if let Some((user, password)) = userinfo.split_once(':') {
            client = client.basic_auth(decode(user), Some(&decode(password)));
        }
        Ok(Self {
            client: client.finish(),
            base: format!("http://{host}{}", uri.path().trim_end_matches('/')),
        })
    }

    /// Where the replicas of a stream of a virtual host are.
    pub async fn replicas(&self, vhost: &str, stream: &str) -> anyhow::Result<Replicas> {
        let vhost = encode(vhost);
        let url = format!("{}/api/queues/{vhost}/{stream}", self.base);
        let failed = |reason: String| anyhow::anyhow!("{} can't be asked: {reason}", self.base);
        let sent = self.client.get(url).send().await;
        let mut answer = sent.map_err(|error| failed(error.to_string()))?;
        match answer.status() {
            status if status.is_success() => {}
            status => return Err(failed(format!("it answers {status}"))),
        }
        let replicas = answer.json().await;
        replicas.map_err(|error| failed(error.to_string()))
    }
}

/// Whatever may not stand in a path, and more.
fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let encode = |byte: u8| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = behind
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_a_path_and_credentials_decoded_from_one() {
        assert_eq!(encode("/"), "%2F");
        assert_eq!(encode("chat-1_é"), "chat-1_%C3%A9");
        assert_eq!(decode("p%40ss%"), "p@ss%");
    }

    #[test]
    fn a_bad_address_is_refused_without_its_password() {
        for url in ["https://u:s3cret@host:15671", "host:s3cret", "http://"] {
            let told = Management::new(url).err().unwrap().to_string();
            assert!(told.starts_with("--management-url is like"));
            assert!(!told.contains("s3cret"));
        }
    }
}
