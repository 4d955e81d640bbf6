//! `ip:port`, and what exactly is wrong with a text that is none. An address of the file is where a node listens and where
//! all others find it, so a host name will not do: two machines may resolve it differently.

use std::net::{IpAddr, SocketAddr};

use super::fault::quote;

/// What is wrong with an address, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAddress {
    /// What is wrong.
    pub what: String,
    /// What puts it right.
    pub remedy: String,
}

/// Reads `ip:port` (IPv6 in brackets); refuses port 0 and addresses that no other node could connect to.
pub fn parse_address(text: &str) -> Result<SocketAddr, NoAddress> {
    match text.parse::<SocketAddr>() {
        Ok(address) => reachable(canonical(address), text),
        Err(_) => Err(explain(text)),
    }
}

/// One spelling for one place: an IPv4 address in IPv6 clothes would otherwise pass as another node.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn reachable(address: SocketAddr, text: &str) -> Result<SocketAddr, NoAddress> {
    let quoted = quote(text);
    if address.port() == 0 {
        return fault(format!("address {quoted} has port 0"), "choose a port from 1 to 65535, such as 8080");
    }
    if address.ip().is_unspecified() {
        let remedy = "write the address at which the other nodes reach this one";
        return fault(
            format!("address {quoted} means every interface, and nothing that others can connect to"),
            remedy,
        );
    }
    let broadcast = matches!(address.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    if address.ip().is_multicast() || broadcast {
        return fault(
            format!("address {quoted} is not that of one machine"),
            "write the IP address of the node's machine",
        );
    }
    Ok(address)
}

/// Says why `text`, which is no socket address, is none.
fn explain(text: &str) -> NoAddress {
    const FORM: &str = "write ip:port, such as 127.0.0.2:8080 or [::1]:8080";
    let quoted = quote(text);
    let because = |what: String, remedy: &str| NoAddress { what, remedy: remedy.to_owned() };

    if text.is_empty() {
        return because("the address is empty".to_owned(), FORM);
    }
    if text.trim() != text {
        return because(format!("address {quoted} has white space around it"), "remove the white space");
    }
    if text.contains("://") || text.contains('/') {
        return because(format!("address {quoted} is a URL or a path"), FORM);
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            return because(format!("address {quoted} has no port"), &format!("add one: \"{ip}:8080\""));
        }
        Ok(IpAddr::V6(_)) => {
            let what = format!("address {quoted} has no port, or lacks the brackets round its IPv6 address");
            return because(what, "write [ip]:port, such as [::1]:8080");
        }
        Err(_) => {}
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match is_host_name(text) {
            true => because(format!("address {quoted} is a host name, and has no port"), FORM),
            false => because(format!("address {quoted} is none"), FORM),
        };
    };
    if host.is_empty() {
        return because(format!("address {quoted} has no IP address before its port"), FORM);
    }
    if is_host_name(host) {
        let remedy = format!("write the IP address of {}, for every node must read the same one here", quote(host));
        return because(format!("address {quoted} has a host name in place of an IP address"), &remedy);
    }
    if port.parse::<u16>().is_err() {
        let what = format!("address {quoted} has {} for its port", quote(port));
        return because(what, "choose a port from 1 to 65535, such as 8080");
    }
    because(format!("address {quoted} begins with {}, which is no IP address", quote(host)), FORM)
}

/// Letters make a name; dots and digits alone are a misspelt IPv4 address, colons a misspelt IPv6 one.
fn is_host_name(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    text.chars().all(allowed) && text.chars().any(char::is_alphabetic)
}

fn fault<T>(what: String, remedy: &str) -> Result<T, NoAddress> {
    Err(NoAddress { what, remedy: remedy.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parse_address_socket_addresses_pass() {
        for text in ["127.0.0.2:8080", "[::1]:8080", "10.1.2.3:1", "10.1.2.3:65535"] {
            assert_eq!(parse_address(text), Ok(text.parse().unwrap()));
        }
        assert_eq!(parse_address("[::ffff:127.0.0.2]:8080"), Ok("127.0.0.2:8080".parse().unwrap()));
    }

    #[test]
    fn parse_address_faults_say_what_is_wrong() {
        let cases = [
            ("", "empty"),
            ("localhost:8080", "host name"),
            ("node1.example.com:8080", "host name"),
            ("localhost", "host name, and has no port"),
            ("127.0.0.2", "has no port"),
            ("::1", "brackets"),
            ("::1:8080", "brackets"),
            ("127.0.0.2:0", "port 0"),
            ("127.0.0.2:", "\"\" for its port"),
            ("127.0.0.2:65536", "\"65536\" for its port"),
            ("127.0.0.2:http", "\"http\" for its port"),
            ("127.0.0.256:8080", "no IP address"),
            ("127.0.0:8080", "no IP address"),
            (":8080", "no IP address before its port"),
            ("http://127.0.0.2:8080", "URL"),
            ("127.0.0.2:8080/", "URL or a path"),
            (" 127.0.0.2:8080", "white space"),
            ("0.0.0.0:8080", "every interface"),
            ("[::]:8080", "every interface"),
            ("224.0.0.1:8080", "not that of one machine"),
            ("255.255.255.255:8080", "not that of one machine"),
            ("8080", "is none"),
        ];
        for (text, expected) in cases {
            let fault = parse_address(text).unwrap_err();
            assert!(fault.what.contains(expected), "{text:?} gave {:?}, not {expected:?}", fault.what);
            assert!(!fault.remedy.is_empty());
        }
    }

    proptest! {
        #[test]
        fn parse_address_any_text_never_panics(text in ".*") {
            let _ = parse_address(&text);
        }
    }
}
