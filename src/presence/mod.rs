//! Who is where, over all instances of a cluster, and on one machine without any other. Pure: no clock, no sockets, and
//! time (milliseconds from any origin) is an argument.
//!
//! Every instance owns a table of [`entry`]s that says who is with it, and tells the others what changes in it ([`own`]).
//! It keeps a copy of each other instance's table ([`peer`]). All of it is soft: messages may be lost, doubled or swapped;
//! beats show it, and the owner says its whole table again, range by range. An instance that is not heard of is forgotten.
//! What all tables say together is what clients are told ([`members`]) and what the backend hears of ([`subjects`]).

pub mod core;
pub mod entry;
pub mod form;
pub mod members;
pub mod own;
pub mod peer;
pub mod subjects;
