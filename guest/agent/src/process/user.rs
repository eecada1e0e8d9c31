//! Who a process runs as: names and numbers out of /etc/passwd and /etc/group.

/// The most groups that Linux gives a process.
const MAX_GROUPS: usize = 65536;

/// A user with all that a process needs of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) account: Option<Account>,
}

/// What the environment says about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) home: String,
    pub(super) shell: String,
}

/// There is no such user or group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnknownUser {
    #[error("there is no user `{0}` in the guest")]
    User(String),
    #[error("there is no group `{0}` in the guest")]
    Group(String),
}

struct Entry<'a> {
    uid: u32,
    gid: u32,
    name: &'a str,
    home: &'a str,
    shell: &'a str,
}

/// Finds `USER` or `USER:GROUP`, each a name or a number. A number need not be in the files.
pub(super) fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<Identity, UnknownUser> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let number = user.parse::<u32>().ok();
    let entry = entries(passwd)
        .find(|entry| entry.name == user || number.is_some_and(|number| entry.uid == number));
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(number)) => number,
        (None, None) => return Err(UnknownUser::User(user.to_owned())),
    };
    let gid = match (wanted_group, &entry) {
        (Some(name), _) => {
            group_number(name, group).ok_or_else(|| UnknownUser::Group(name.to_owned()))?
        }
        (None, Some(entry)) => entry.gid,
        (None, None) => uid,
    };
    let mut groups = vec![gid];
    if let (Some(entry), None) = (&entry, wanted_group) {
        groups.extend(memberships(entry.name, group).filter(|&other| other != gid));
        groups.truncate(MAX_GROUPS);
    }
    let account = entry.map(|entry| Account {
        name: entry.name.to_owned(),
        home: entry.home.to_owned(),
        shell: entry.shell.to_owned(),
    });
    Ok(Identity { uid, gid, groups, account })
}

/// Lines that are not accounts, as other sources of names leave them there, are passed over.
fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let _comment = fields.next()?;
        Some(Entry { uid, gid, name, home: fields.next()?, shell: fields.next().unwrap_or("") })
    })
}

/// Name, number and members.
fn groups(file: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        Some((name, fields.next()?.parse().ok()?, fields.next().unwrap_or("")))
    })
}

fn group_number(wanted: &str, file: &str) -> Option<u32> {
    let named = groups(file).find(|(name, ..)| *name == wanted).map(|(_, number, _)| number);
    named.or_else(|| wanted.parse().ok())
}

fn memberships<'a>(user: &'a str, file: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(file)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, number, _)| number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n+::::::\nanna:x:1000:100:,,,:/home/anna:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:anna\nkvm:x:36:bob,anna\nbad\n";

    #[test]
    fn names_and_numbers_are_found() {
        let anna = resolve("anna", PASSWD, GROUP).unwrap();
        assert_eq!((anna.uid, anna.gid), (1000, 100));
        assert_eq!(anna.groups, [100, 36]);
        assert_eq!(anna.account.as_ref().unwrap().home, "/home/anna");
        assert_eq!(resolve("1000", PASSWD, GROUP).unwrap(), anna);

        let group = resolve("anna:kvm", PASSWD, GROUP).unwrap();
        assert_eq!((group.gid, group.groups), (36, vec![36]));
        let stranger = resolve("77:88", PASSWD, GROUP).unwrap();
        assert_eq!((stranger.uid, stranger.gid, stranger.account), (77, 88, None));
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(resolve("eve", PASSWD, GROUP), Err(UnknownUser::User("eve".into())));
        assert_eq!(resolve("", PASSWD, GROUP), Err(UnknownUser::User(String::new())));
        assert_eq!(resolve("anna:x", PASSWD, GROUP), Err(UnknownUser::Group("x".into())));
    }

    proptest! {
        #[test]
        fn any_files_are_read(wanted: String, passwd: String, group: String) {
            let _ = resolve(&wanted, &passwd, &group);
        }
    }
}
