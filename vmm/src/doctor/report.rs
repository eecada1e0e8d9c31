//! What was found, as text for people and as JSON for machines.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Serialize;

use super::kvm::Speed;
use crate::outcome::BAD_INPUT;

/// What one try has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// It works.
    Ok,
    /// It works less well than it could.
    Warn,
    /// It does not work.
    Missing,
}

/// What depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Need {
    /// No machine runs without it.
    Required,
    /// Some machines or some options want it.
    Optional,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    name: &'static str,
    status: Status,
    need: Need,
    detail: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Cow<'static, str>>,
}

impl Check {
    pub(super) fn ok(name: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { name, status: Status::Ok, need: Need::Optional, detail: detail.into(), hint: None }
    }

    pub(super) fn warn(name: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Warn, ..Self::ok(name, detail) }
    }

    pub(super) fn missing(name: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Missing, ..Self::ok(name, detail) }
    }

    pub(super) fn hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn required(self) -> Self {
        Self { need: Need::Required, ..self }
    }
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// Machines can run here.
    can_run: bool,
    /// Guest kernels run on the processor itself, not in an emulator.
    native: bool,
    /// How fast ring 0 of a guest runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    ring0_mips: Option<f64>,
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(speed: Option<Speed>) -> Self {
        Self {
            can_run: true,
            native: speed.is_some_and(Speed::is_native),
            // Three digits are more than the measurement is worth.
            ring0_mips: speed.map(|speed| (speed.mips() * 100.0).round() / 100.0),
            checks: Vec::new(),
        }
    }

    pub(super) fn extend(&mut self, checks: impl IntoIterator<Item = Check>) {
        self.checks.extend(checks);
        self.can_run = !self
            .checks
            .iter()
            .any(|check| check.need == Need::Required && check.status == Status::Missing);
    }

    pub(super) fn exit_code(&self) -> u8 {
        if self.can_run { 0 } else { BAD_INPUT }
    }

    pub(super) fn to_json(&self) -> String {
        // Strings, numbers and lists of them always have a JSON form.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    pub(super) fn to_text(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Missing => "missing",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{status:8}{:width$}  {}", check.name, check.detail);
            if let Some(hint) = &check.hint {
                let _ = writeln!(text, "{:8}{:width$}  hint: {hint}", "", "");
            }
        }
        let verdict = match (self.can_run, self.native) {
            (true, true) => "virtual machines run here, on the processor itself",
            (true, false) => "virtual machines run here, slowly: this KVM emulates guest kernels",
            (false, _) => "virtual machines cannot run here",
        };
        text.push_str(verdict);
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_decides() {
        let mut report = Report::new(None);
        report.extend([Check::missing("vsock", "no"), Check::warn("kvm", "slow").required()]);
        assert_eq!(report.exit_code(), 0);
        report.extend([Check::missing("kvm", "no").required()]);
        assert_eq!(report.exit_code(), 35);
    }

    #[test]
    fn hints_stand_under_their_line() {
        let mut report = Report::new(None);
        report
            .extend([Check::ok("kvm", "there"), Check::missing("passt", "no").hint("install it")]);
        assert_eq!(
            report.to_text(),
            "ok      kvm    there\n\
             missing passt  no\n\
             \u{20}              hint: install it\n\
             virtual machines run here, slowly: this KVM emulates guest kernels\n"
        );
        assert_eq!(
            report.to_json(),
            "{\"can_run\":true,\"native\":false,\"checks\":[\
             {\"name\":\"kvm\",\"status\":\"ok\",\"need\":\"optional\",\"detail\":\"there\"},\
             {\"name\":\"passt\",\"status\":\"missing\",\"need\":\"optional\",\"detail\":\"no\",\
             \"hint\":\"install it\"}]}\n"
        );
    }
}
