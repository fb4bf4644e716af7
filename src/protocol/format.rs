//! In which form a client reads what its rooms say.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// The client protocol's messages, in WebSocket frames.
    Frames(Codec),
    /// Server-sent events.
    Events,
}

/// How the client protocol's messages are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// One object a line.
    #[default]
    Json,
    /// Each behind its length.
    Protobuf,
}

impl Codec {
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];
}

impl Format {
    pub const JSON: Self = Self::Frames(Codec::Json);
    pub const PROTOBUF: Self = Self::Frames(Codec::Protobuf);
    pub const ALL: [Self; 3] = [Self::JSON, Self::PROTOBUF, Self::Events];

    /// How messages are written; who reads events is sent none.
    pub fn codec(self) -> Codec {
        match self {
            Self::Frames(codec) => codec,
            Self::Events => Codec::default(),
        }
    }
}
