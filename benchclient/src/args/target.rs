//! The node to load, as the command line names it.

/// The node to load: an `http://HOST:PORT` without anything behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    authority: String,
}

impl Target {
    /// Understands `HOST:PORT`, `http://HOST:PORT` and the same with a `/` at the end.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let bare = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(format!("only http:// is spoken here, not {scheme}://")),
            None => text,
        };
        let authority = bare.strip_suffix('/').unwrap_or(bare);
        if authority.contains(['/', '?', '#', '@']) || authority.contains(char::is_whitespace) {
            return Err("give only a host and a port, such as 127.0.0.2:8080".into());
        }
        let (host, port) = authority
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
            .ok_or_else(|| format!("the port is missing: write {authority}:8080 ([::1]:8080 for an IPv6 address)"))?;
        if host.is_empty() {
            return Err(format!("the host is missing: write 127.0.0.1:{port}"));
        }
        match port.parse::<u16>() {
            Ok(1..) => Ok(Target { authority: authority.to_owned() }),
            _ => Err(format!("{port:?} is not a port: give a number from 1 to 65535")),
        }
    }

    /// `HOST:PORT`, as it stands in `Host`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// `http://HOST:PORT`, for people.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn target_with_or_without_scheme_is_the_same_node() {
        for text in ["127.0.0.2:8080", "http://127.0.0.2:8080", "HTTP://127.0.0.2:8080/", "127.0.0.2:8080/"] {
            assert_eq!(Target::parse(text).map(|t| t.base()), Ok("http://127.0.0.2:8080".into()), "{text}");
        }
        assert_eq!(Target::parse("[::1]:80").map(|t| t.base()), Ok("http://[::1]:80".into()));
        assert_eq!(Target::parse("localhost:80").map(|t| t.base()), Ok("http://localhost:80".into()));
    }

    #[test]
    fn target_that_is_none_is_refused_with_what_to_write() {
        for (text, part) in [
            ("127.0.0.2", "127.0.0.2:8080"),
            ("::1", "[::1]:8080"),
            (":8080", "host is missing"),
            ("https://127.0.0.2:8080", "only http://"),
            ("127.0.0.2:0", "1 to 65535"),
            ("127.0.0.2:http", "1 to 65535"),
            ("127.0.0.2:8080/set?key=a", "only a host and a port"),
            ("user@127.0.0.2:8080", "only a host and a port"),
            ("", "port is missing"),
        ] {
            let Err(message) = Target::parse(text) else { panic!("{text} was taken") };
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
