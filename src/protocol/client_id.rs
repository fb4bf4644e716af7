//! The ids that clients are known by, on the wire and to backends.
//!
//! An id is a random UUID (version 4) whose last bits are the number of the client's session. So whoever is handed an
//! id finds the session without a table of all clients.

use uuid::Uuid;

/// Sessions' numbers have as many bits as version 4 leaves at the end of a UUID.
const NUMBER: u64 = (1 << 62) - 1;

/// A number to begin with: the sessions of servers that began at random ones are told apart.
pub fn first_session() -> u64 {
    session_of(Uuid::new_v4())
}

/// An id for the session of that number, of which 62 bits count.
pub fn of_session(session: u64) -> Uuid {
    let (random, variant) = Uuid::new_v4().as_u64_pair();
    Uuid::from_u64_pair(random, variant & !NUMBER | session & NUMBER)
}

/// The number of the client's session, on whichever server that is.
pub fn session_of(client: Uuid) -> u64 {
    client.as_u64_pair().1 & NUMBER
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_session_is_found_by_an_id_that_nobody_can_guess(session in 0..=NUMBER) {
            let (client, other) = (of_session(session), of_session(session));
            prop_assert_eq!(session_of(client), session);
            prop_assert_ne!(client, other);
            prop_assert_eq!(client.get_version_num(), 4);
            prop_assert_eq!(client.get_variant(), uuid::Variant::RFC4122);
        }
    }
}
