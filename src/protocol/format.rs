//! In which form a client reads what its rooms say.

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// The client protocol's messages, in WebSocket frames.
    #[default]
    Frames,
    /// Server-sent events.
    Events,
}

impl Format {
    pub const ALL: [Self; 2] = [Self::Frames, Self::Events];
}
