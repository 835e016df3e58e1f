//! From root to nobody in particular, once the listeners are bound.
//!
//! There is no way back: ports below 1024 that a reload adds cannot be bound
//! any more, and files are read as the new user from then on.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, geteuid, initgroups, setgid, setgroups, setuid};

use crate::settings::Value;

/// Whom the process becomes: `user` or `user:group`, by names or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The user's name, if the system has one, for its other groups.
    name: Option<CString>,
    user: Uid,
    group: Gid,
}

impl Value for RunAs {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let known = match user.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(user),
        };
        let known =
            known.map_err(|error| format!("names a user that cannot be looked up: {error}"))?;
        let id = match (&known, user.parse()) {
            (Some(known), _) => known.uid,
            (None, Ok(number)) => Uid::from_raw(number),
            (None, Err(_)) => return Err(format!("names no user of this system: {user:?}")),
        };
        if id.is_root() {
            return Err("is root".to_owned());
        }
        let group = match (group, &known) {
            (Some(group), _) => group_id(group)?,
            (None, Some(known)) => known.gid,
            (None, None) => return Err("is a user without a group; say user:group".to_owned()),
        };
        Ok(Self {
            name: known.and_then(|known| CString::new(known.name).ok()),
            user: id,
            group,
        })
    }
}

fn group_id(text: &str) -> Result<Gid, String> {
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("names no group of this system: {text:?}")),
        Err(error) => Err(format!("names a group that cannot be looked up: {error}")),
    }
}

/// Becomes the user that the settings name, for good; all threads do.
///
/// # Errors
/// The operating system's. The process should end then.
pub(super) fn drop_to(wanted: Option<&RunAs>) -> Result<(), Errno> {
    let root = geteuid().is_root();
    let Some(wanted) = wanted else {
        if root {
            tracing::warn!("runs as root: set PORTCULLIS_RUN_AS to a user without privileges");
        }
        return Ok(());
    };
    if geteuid() == wanted.user {
        return Ok(());
    }
    // Groups first: once the user has changed, nothing else may be.
    match &wanted.name {
        Some(name) => initgroups(name, wanted.group)?,
        None => setgroups(&[wanted.group])?,
    }
    setgid(wanted.group)?;
    setuid(wanted.user)?;
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err(Errno::EPERM);
    }
    tracing::info!(user = %wanted.user, group = %wanted.group, "privileges are dropped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_numbers_and_refuses_root_and_strangers() {
        let nobody = RunAs::parse("nobody").unwrap();
        let number = nobody.user.as_raw();
        assert_eq!(RunAs::parse(&number.to_string()), Ok(nobody));
        let both = RunAs::parse("54321:54322").unwrap();
        assert_eq!((both.user.as_raw(), both.group.as_raw()), (54321, 54322));
        for (bad, why) in [
            ("root", "is root"),
            ("0:54322", "is root"),
            ("54321", "without a group"),
            ("no-such-user", "no user of this system"),
            ("nobody:no-such-group", "no group of this system"),
            ("", "no user of this system"),
        ] {
            let error = RunAs::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
