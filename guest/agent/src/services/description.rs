//! A service's file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proto::v1;
use serde::Deserialize;

/// More than a description needs.
const MAX_BYTES: u64 = 64 << 10;

/// When a service that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Restart {
    #[default]
    Always,
    /// Unless its status was 0.
    OnFailure,
    Never,
}

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Description {
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    cwd: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    restart: Restart,
}

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) request: v1::StartRequest,
    pub(super) restart: Restart,
}

/// Why a file describes no service.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(super) struct Problem {
    path: PathBuf,
    reason: String,
}

/// All `*.toml` of a folder, in the order of their names. No folder has none.
pub(super) fn read_all(folder: &Path) -> Vec<Result<Service, Problem>> {
    let problem = |path: &Path, reason: &dyn std::fmt::Display| Problem {
        path: path.into(),
        reason: reason.to_string(),
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![Err(problem(folder, &error))],
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = read_text(&path).map_err(|error| problem(&path, &error))?;
        let description = parse(&text).map_err(|reason| problem(&path, &reason))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Service::new(name, description))
    };
    paths.into_iter().map(read).collect()
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    fs::read_to_string(path)
}

/// Refuses what could never start.
fn parse(text: &str) -> Result<Description, String> {
    let description: Description = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
        format!("line {}: {}", line + 1, error.message())
    })?;
    if description.command.first().is_none_or(String::is_empty) {
        return Err("`command` names no program".into());
    }
    Ok(description)
}

impl Service {
    fn new(name: String, description: Description) -> Self {
        let Description { command, env, cwd, user, restart } = description;
        let variable = |(name, value): (String, String)| v1::Variable {
            name: name.into_bytes(),
            value: value.into_bytes(),
        };
        let pipes = v1::Pipes { stdin: false, stdout: true, stderr: true };
        let request = v1::StartRequest {
            argv: command.into_iter().map(String::into_bytes).collect(),
            env: env.into_iter().map(variable).collect(),
            cwd: cwd.into_bytes(),
            user,
            limits: Vec::new(),
            stdio: Some(v1::start_request::Stdio::Pipes(pipes)),
        };
        Self { name, request, restart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_order_and_what_is_wrong_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("b.toml", "command = ['/bin/b', '-x']\nrestart = 'on-failure'\nenv = { A = '1' }");
        write("a.toml", "command = ['/bin/a']\nuser = 'daemon'");
        write("c.toml", "command = ['/bin/c']\nrestarts = 'never'");
        write("d.toml", "command = []");
        write("e.txt", "?");
        let all = read_all(folder.path());
        let names: Vec<_> = all.iter().flatten().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let b = all[1].as_ref().unwrap();
        assert_eq!(b.restart, Restart::OnFailure);
        assert_eq!(b.request.argv, [b"/bin/b".to_vec(), b"-x".to_vec()]);
        assert_eq!(b.request.env[0].name, b"A");
        let wrong: Vec<_> = all.into_iter().filter_map(Result::err).collect();
        assert!(wrong[0].to_string().contains("c.toml: line 2: unknown field `restarts`"));
        assert!(wrong[1].to_string().contains("d.toml: `command` names no program"));
        assert!(read_all(&folder.path().join("none")).is_empty());
    }
}
