//! The one place that decides whether a room is open to a client.

use super::Grants;
use crate::{config::RoomAccess, delta::RoomName};

/// Whether `user`, empty for an anonymous one, may follow and read the room without a token for just that. `access` is
/// what the room's namespace says, `grants` what the user's connection token opens.
pub fn admits(access: RoomAccess, user: &str, grants: Option<&Grants>, room: &RoomName) -> bool {
    let by_namespace = match access {
        RoomAccess::Public => true,
        RoomAccess::Token => false,
        RoomAccess::UserLimited => names(room, user),
    };
    by_namespace || grants.is_some_and(|grants| grants.open(room))
}

/// Whether `user` is one of those that stand behind the last `#` of the room's name, with commas: `dialog:#ann,bob`.
fn names(room: &RoomName, user: &str) -> bool {
    let named = room.as_str().rsplit_once('#').map(|(_, users)| users);
    // Anonymous clients are no user, also where a comma too many leaves an empty name.
    !user.is_empty() && named.is_some_and(|users| users.split(',').any(|name| name == user))
}

#[cfg(test)]
mod tests {
    use super::{super::pattern::Pattern, *};

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    #[test]
    fn a_public_room_is_open_to_all_and_a_token_room_to_nobody_without_one() {
        for user in ["", "ann"] {
            assert!(admits(RoomAccess::Public, user, None, &room("r")));
            assert!(!admits(RoomAccess::Token, user, None, &room("r#ann")));
        }
    }

    #[test]
    fn a_user_limited_room_is_open_to_the_users_in_its_name_alone() {
        let limited =
            |user: &str, name: &str| admits(RoomAccess::UserLimited, user, None, &room(name));
        assert!(limited("ann", "dialog:#ann"));
        assert!(limited("bob", "dialog:7#ann,bob"));
        assert!(limited("bob", "a#ann#bob"), "the last # counts");
        for (user, name) in [
            ("", "dialog:#ann"),
            ("", "dialog:#"),
            ("", "dialog:#ann,,bob"),
            ("", "dialog:#,"),
            ("an", "dialog:#ann"),
            ("anna", "dialog:#ann"),
            ("Ann", "dialog:#ann"),
            ("ann,bob", "dialog:#ann,bob"),
            ("ann", "ann"),
            ("ann", "dialog:ann"),
            ("ann", "a#ann#bob"),
            ("a#ann", "dialog:#a#ann"),
        ] {
            assert!(!limited(user, name), "{user:?} {name}");
        }
    }

    #[test]
    fn a_connection_token_opens_the_rooms_that_it_names() {
        let grants = Grants {
            rooms: vec![Pattern::new("chat:*"), Pattern::new("news")],
        };
        for access in [RoomAccess::Token, RoomAccess::UserLimited] {
            let open = |name: &str| admits(access, "ann", Some(&grants), &room(name));
            assert!(open("chat:1") && open("news"));
            assert!(!open("board:1") && !open("news2"));
        }
    }
}
