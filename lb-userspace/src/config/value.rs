//! What stands inside the strings of the file: addresses, durations, statuses, names.
//!
//! Pure functions from text to a value or a [`Fault`]; where the text stands is the caller's to know.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

/// What is wrong with a value and how to put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) help: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// `10.0.0.1:80`, an address that a packet on the network can carry.
pub(super) fn ipv4_socket(text: &str) -> Result<SocketAddr, Fault> {
    let (host, port) = host_and_port(text)?;
    let address: Ipv4Addr = host.parse().map_err(|_| not_an_address(host))?;
    let unusable = if address.is_unspecified() || address.octets()[0] == 0 {
        "names no host"
    } else if address.is_loopback() {
        "is this host's loopback, which no packet on the network carries"
    } else if address.is_multicast() {
        "is a multicast group"
    } else if address.octets()[0] >= 240 {
        "is broadcast or reserved"
    } else {
        return Ok(SocketAddrV4::new(address, self::port(port)?).into());
    };
    Err(Fault::new(
        format!("{address} {unusable}"),
        "use the unicast address of an interface",
    ))
}

/// An address to listen on: IPv4 or IPv6, loopback and any address included.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Fault> {
    if let Some((host, port)) = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
    {
        let address: Ipv6Addr = host.parse().map_err(|_| not_an_address(host))?;
        return Ok(SocketAddr::new(IpAddr::V6(address), self::port(port)?));
    }
    let (host, port) = host_and_port(text)?;
    let address: Ipv4Addr = host.parse().map_err(|_| not_an_address(host))?;
    Ok(SocketAddr::new(IpAddr::V4(address), self::port(port)?))
}

fn host_and_port(text: &str) -> Result<(&str, &str), Fault> {
    let bare = text
        .strip_prefix('[')
        .map_or(text, |rest| rest.split(']').next().unwrap_or(rest));
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Err(Fault::new(
            format!("{text} is an IPv6 address; IPv6 is not supported yet"),
            "use an IPv4 address",
        ));
    }
    text.split_once(':').ok_or_else(|| {
        if text.parse::<Ipv4Addr>().is_ok() {
            Fault::new(
                format!("{text} has no port"),
                format!("add the port, such as \"{text}:80\""),
            )
        } else {
            not_an_address(text)
        }
    })
}

fn not_an_address(text: &str) -> Fault {
    Fault::new(
        format!("{text:?} is not an IPv4 address"),
        "write address and port in numbers, such as \"10.0.0.11:80\"; names are not looked up",
    )
}

fn port(text: &str) -> Result<u16, Fault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new(
            format!("{text:?} is not a port"),
            "use a port from 1 to 65535",
        ));
    }
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Fault::new(
            format!("port {text} is out of range"),
            "use a port from 1 to 65535",
        )),
    }
}

/// Shortest time that may be asked for.
const SHORTEST: Duration = Duration::from_millis(1);
/// Longest time that may be asked for.
const LONGEST: Duration = Duration::from_hours(1);

/// A whole number and a unit: `500ms`, `2s`, `1m`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => 0,
    };
    if number.is_empty() || millis == 0 {
        return Err(Fault::new(
            format!("{text:?} is not a duration"),
            "write a whole number and ms, s or m, such as \"500ms\" or \"2s\"",
        ));
    }
    let duration = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(millis))
        .map(Duration::from_millis);
    duration
        .filter(|duration| (SHORTEST..=LONGEST).contains(duration))
        .ok_or_else(|| {
            Fault::new(
                format!("{text:?} is out of range"),
                "use a duration from 1ms to 60m",
            )
        })
}

/// `200` or `200-299`, inclusive.
pub(super) fn statuses(text: &str) -> Result<(u16, u16), Fault> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|status| (100..=599).contains(status))
    };
    match (status(low), status(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(low), Some(high)) => Err(Fault::new(
            format!("{text:?} is empty"),
            format!("write the lower status first: \"{high}-{low}\""),
        )),
        _ => Err(Fault::new(
            format!("{text:?} is not a status or a range of them"),
            "use statuses from 100 to 599, such as \"200-299\" or \"304\"",
        )),
    }
}

/// A path with an optional query, as a request line carries it.
pub(super) fn path(text: &str) -> Result<String, Fault> {
    if !text.starts_with('/') {
        return Err(Fault::new(
            format!("path {text:?} does not start with /"),
            format!("write {:?}", format!("/{text}")),
        ));
    }
    let valid = !text.contains('#') && text.parse::<hyper::http::uri::PathAndQuery>().is_ok();
    if !valid || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::new(
            format!("{text:?} is not a path"),
            "use visible ASCII, and %XX for anything else, such as \"/health%20check\"",
        ));
    }
    Ok(text.to_owned())
}

/// A `Host` header: a name or an address, with or without a port.
pub(super) fn host(text: &str) -> Result<String, Fault> {
    /// A name of 253 (RFC 1035 section 2.3.4), a colon and a port.
    const MAX: usize = 253 + 6;
    if text.len() > MAX {
        return Err(Fault::new(
            format!("a host of {} characters is too long", text.len()),
            format!("write a name of at most {MAX}"),
        ));
    }
    if text
        .parse::<hyper::http::uri::Authority>()
        .is_ok_and(|authority| !authority.as_str().contains('@'))
    {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a host"),
        "write a name, such as \"www.example.com\" or \"10.0.0.11:8080\"",
    ))
}

/// The name of a pool, a backend or a service: it stands in logs, labels and tables.
pub(super) fn name(text: &str) -> Result<String, Fault> {
    if (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a name"),
        "use 1 to 64 visible ASCII characters without spaces, \" and \\",
    ))
}

/// The name of an instance: it stands in the names of directories.
pub(super) fn instance(text: &str) -> Result<String, Fault> {
    if is_instance(text) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not the name of an instance"),
        "use 1 to 32 of a to z, 0 to 9 and -",
    ))
}

/// `[a-z0-9-]{1,32}`.
pub(super) fn is_instance(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The name of an interface, by the kernel's rules (`dev_valid_name` in net/core/dev.c).
pub(super) fn interface(text: &str) -> Result<String, Fault> {
    let valid = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if valid {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not the name of an interface"),
        "use a name that `ip link` shows",
    ))
}

/// An absolute path of a file or directory.
pub(super) fn absolute(text: &str) -> Result<&str, Fault> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(text);
    }
    Err(Fault::new(
        format!("{text:?} is not an absolute path"),
        "start it with /",
    ))
}

/// The path of a Unix socket; the kernel takes 107 bytes (`sockaddr_un`, unix(7)).
pub(super) fn socket(text: &str) -> Result<&str, Fault> {
    absolute(text)?;
    if text.len() <= 107 {
        return Ok(text);
    }
    Err(Fault::new(
        format!("the path of the socket has {} bytes", text.len()),
        "use a path of at most 107 bytes",
    ))
}
