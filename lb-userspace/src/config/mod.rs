//! From the text of a configuration file to a checked [`Model`], or to everything that is wrong with it at once.
//!
//! It reads the one file it is given and nothing else: whether an interface exists or a path is a bpffs is for those to
//! say who use it. The keys and their meaning stand in `examples/lb.toml`.

mod check;
mod diagnostic;
mod draft;
mod key;
mod rules;
mod section;
mod sections;
mod value;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use self::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use self::{
    diagnostic::Report,
    draft::Draft,
    key::{one_of, parsed},
    section::{Located, Section},
};
use crate::model::{DataPlane, DataPlaneLog, Model, ReadyWhen};

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it asks for.
    pub model: Model,
    /// What in it invites trouble.
    pub warnings: Diagnostics,
}

/// Name of the instance where neither file nor command line gives one.
pub const DEFAULT_INSTANCE: &str = "lb";
/// Where bpffs is mounted on every distribution.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf";

/// Larger than any file of 4,096 services; a device or a log given by mistake ends here.
const MAX_FILE: u64 = 16 << 20;

const TOP: &[&str] = &[
    "instance",
    "manage_addresses",
    "agent",
    "metrics",
    "data_plane",
    "interface",
    "pool",
    "service",
];
const AGENT: &[&str] = &["pin_root", "socket", "ready_when"];
const METRICS: &[&str] = &["listen"];
const DATA_PLANE: &[&str] = &["log", "flow_entries"];

/// Every section and its keys.
const SECTIONS: &[(&str, &[&str])] = &[
    ("the file", TOP),
    ("[agent]", AGENT),
    ("[metrics]", METRICS),
    ("[data_plane]", DATA_PLANE),
    ("[[interface]]", sections::INTERFACE),
    ("[[pool]]", sections::POOL),
    ("[pool.check]", check::KEYS),
    ("[[pool.backend]]", sections::BACKEND),
    ("[[service]]", sections::SERVICE),
];

/// The socket of an instance where the file names none.
#[must_use]
pub fn default_socket(instance: &str) -> PathBuf {
    PathBuf::from(format!("/run/lb/{instance}.sock"))
}

/// Whether `name` may name an instance: `[a-z0-9-]{1,32}`.
#[must_use]
pub fn is_instance(name: &str) -> bool {
    value::is_instance(name)
}

/// Reads and checks a file.
///
/// # Errors
/// Every finding, warnings included, where the file can't be read or holds an error.
pub fn load(path: &Path) -> Result<Checked, Diagnostics> {
    let name = path.display().to_string();
    let refuse = |message: String, help: &str| refusal(path, message, help);
    let bytes = read(path).map_err(|(message, help)| refuse(message, help))?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, &name),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error
                .as_bytes()
                .iter()
                .take(valid)
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            Err(refuse(
                format!("line {line} is not UTF-8"),
                "save the file as UTF-8",
            ))
        }
    }
}

/// The socket of the agent that runs a file. Whatever else is wrong with the file is the agent's to say.
///
/// # Errors
/// The file can't be read, or is not TOML: what it then seems to say may name another agent.
pub fn socket_of(path: &Path) -> Result<PathBuf, Diagnostics> {
    let bytes = read(path).map_err(|(message, help)| refusal(path, message, help))?;
    let text = String::from_utf8_lossy(&bytes);
    let (table, faults) = DeTable::parse_recoverable(&text);
    if !faults.is_empty() {
        let whole = parse(&text, &path.display().to_string());
        return Err(whole.err().unwrap_or_default());
    }
    let top = table.get_ref();
    let string = |table: &DeTable<'_>, key: &str| {
        let value = table.get(key)?.get_ref().as_str()?;
        Some(value.to_owned())
    };
    let agent = top
        .get("agent")
        .and_then(|agent| agent.get_ref().as_table());
    if let Some(socket) = agent.and_then(|agent| string(agent, "socket")) {
        return Ok(socket.into());
    }
    let instance = string(top, "instance").filter(|name| is_instance(name));
    Ok(default_socket(
        instance.as_deref().unwrap_or(DEFAULT_INSTANCE),
    ))
}

/// What is reported of a file that could not be read at all.
#[must_use]
pub fn refusal(path: &Path, message: String, help: &str) -> Diagnostics {
    let name = path.display().to_string();
    let mut report = Report::new(&name, "");
    report.error_in_file(message, help);
    report.finish()
}

fn read(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    use std::io::Read as _;

    let cannot = |error: std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "make it readable for the user that runs this",
            _ => "give the path of a readable file",
        };
        (format!("can't be read: {error}"), help)
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err((
            "is larger than 16 MiB".to_owned(),
            "give the path of a configuration",
        ));
    }
    Ok(bytes)
}

/// Checks a text; `name` stands for the file in what is reported.
///
/// 1. The text must be TOML; if it is not, only that is reported, because the rest would be guesses.
/// 2. Each section is read by itself.
/// 3. Rules that look across sections.
///
/// # Errors
/// Every finding, warnings included, where there is an error.
pub fn parse(text: &str, name: &str) -> Result<Checked, Diagnostics> {
    let mut report = Report::new(name, text);

    let (table, faults) = DeTable::parse_recoverable(text);
    if !faults.is_empty() {
        for fault in faults {
            let span = fault.span().unwrap_or_default();
            let (message, help) =
                syntax(fault.message(), text.get(span.clone()).unwrap_or_default());
            report.error(&span, message, help);
        }
        return Err(report.finish());
    }

    let top = Section::new("the file", 0..0, table.get_ref(), TOP, &mut report);
    let model = read_file(&top, &mut report);

    let findings = report.finish();
    match model {
        Some(model) if !findings.has_errors() => Ok(Checked {
            model,
            warnings: findings,
        }),
        _ => Err(findings),
    }
}

/// What the parser says of `text`, and the help. Of a bare word it says what its first letter makes it expect.
fn syntax<'m>(message: &'m str, text: &str) -> (&'m str, &'static str) {
    let bare_word = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let guessed = [
        "invalid float",
        "invalid boolean",
        "invalid integer",
        "invalid date",
    ];
    if message.contains("must be quoted")
        || (bare_word && guessed.iter().any(|guess| message.starts_with(guess)))
    {
        ("string values must be quoted", "put it in quotes")
    } else if message.contains("duplicate key") {
        (
            message,
            "remove one of the two; a section that may stand several times is written [[pool]], [[pool.backend]], ...",
        )
    } else {
        (
            message,
            "correct the TOML; its rules are at https://toml.io",
        )
    }
}

fn read_file(top: &Section<'_>, report: &mut Report<'_>) -> Option<Model> {
    let instance = parsed(top, "instance", value::instance, report).map(|instance| instance.value);
    let instance = instance.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
    let manage_addresses = top.boolean("manage_addresses", report).unwrap_or(false);

    let agent = top.table("agent", "[agent]", AGENT, report);
    let in_agent =
        |key: &str, parse: fn(&str) -> Result<&str, value::Fault>, report: &mut Report<'_>| {
            let path = parsed(
                agent.as_ref()?,
                key,
                |text| parse(text).map(PathBuf::from),
                report,
            )?;
            Some(path.value)
        };
    let pin_root =
        in_agent("pin_root", value::absolute, report).unwrap_or_else(|| DEFAULT_PIN_ROOT.into());
    let socket =
        in_agent("socket", value::socket, report).unwrap_or_else(|| default_socket(&instance));
    let conditions = [
        ReadyWhen::Attached,
        ReadyWhen::AnyService,
        ReadyWhen::AllServices,
    ]
    .map(|when| (when.name(), when));
    let ready_when = agent.as_ref().and_then(|agent| {
        let found = parsed(
            agent,
            "ready_when",
            one_of("condition", &conditions, &[]),
            report,
        );
        Some(found?.value)
    });

    let metrics = top
        .table("metrics", "[metrics]", METRICS, report)
        .and_then(|metrics| {
            metrics.require("listen", "listen = \"127.0.0.1:9850\"", report);
            Some(parsed(&metrics, "listen", value::listen, report)?.value)
        });
    let data_plane = data_plane(top, report);

    if top.lacks("interface") {
        let message = "there is no [[interface]], so nothing would be attached";
        report.error_in_file(message, "add [[interface]] with name = \"eth0\" under it");
    }
    if top.lacks("service") {
        report.warning_in_file(
            "there is no [[service]], so every packet passes untouched",
            "add [[service]]",
        );
    }
    let draft = Draft {
        interfaces: top
            .tables("interface", "[[interface]]", sections::INTERFACE, report)
            .iter()
            .map(|section| sections::interface(section, report))
            .collect(),
        pools: top
            .tables("pool", "[[pool]]", sections::POOL, report)
            .iter()
            .map(|section| sections::pool(section, report))
            .collect(),
        services: top
            .tables("service", "[[service]]", sections::SERVICE, report)
            .iter()
            .map(|section| sections::service(section, report))
            .collect(),
    };
    rules::check(&draft, report);

    let (interfaces, pools, services) = draft.finish()?;
    Some(Model {
        instance,
        manage_addresses,
        pin_root,
        socket,
        ready_when: ready_when.unwrap_or_default(),
        metrics,
        data_plane,
        interfaces,
        pools,
        services,
    })
}

fn data_plane(top: &Section<'_>, report: &mut Report<'_>) -> DataPlane {
    let mut settings = DataPlane {
        log: DataPlaneLog::Off,
        flow_entries: lb_common::abi::DEFAULT_FLOW_ENTRIES,
    };
    let Some(section) = top.table("data_plane", "[data_plane]", DATA_PLANE, report) else {
        return settings;
    };
    let levels = [
        ("off", DataPlaneLog::Off),
        ("error", DataPlaneLog::Error),
        ("info", DataPlaneLog::Info),
        ("debug", DataPlaneLog::Debug),
    ];
    if let Some(Located { value, .. }) =
        parsed(&section, "log", one_of("level", &levels, &[]), report)
    {
        settings.log = value;
    }
    if let Some(Located { value, .. }) = section.number("flow_entries", 1_024..=16_777_216, report)
    {
        settings.flow_entries = value;
    }
    settings
}
