//! Where values come from, before anybody looks at them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use super::{Problem, VARIABLES};

/// Reads a file's text. The one I/O that reading a configuration may need, since which file it is
/// follows from other values.
pub type Files = Box<dyn Fn(&Path) -> io::Result<String> + Send + Sync>;

/// Values by variable name, as text. Flags win over the environment, that over `NAME_FILE`, that
/// over `.env`. An empty value counts as unset, and hides those behind it.
pub struct Source {
    /// From the command line, by variable name. May hold `NAME_FILE` too.
    pub flags: BTreeMap<String, String>,
    /// From the process environment.
    pub environment: BTreeMap<String, String>,
    /// From `.env`.
    pub dotenv: BTreeMap<String, String>,
    /// How a file is read.
    pub files: Files,
    /// What was wrong with the places themselves.
    pub problems: Vec<Problem>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Source {
    /// Values from maps only; there are no files.
    pub fn from_environment<K: Into<String>, V: Into<String>>(
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self {
            flags: BTreeMap::new(),
            environment: environment.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            dotenv: BTreeMap::new(),
            files: Box::new(|_| Err(io::ErrorKind::NotFound.into())),
            problems: Vec::new(),
        }
    }

    /// `flags`, this process' environment, the `.env` file of the working directory where there is
    /// one, and the file system. Changes nothing of the process.
    pub fn of_process(flags: BTreeMap<String, String>) -> Self {
        let mut source = Self {
            flags,
            environment: BTreeMap::new(),
            dotenv: BTreeMap::new(),
            files: Box::new(|path| std::fs::read_to_string(path)),
            problems: Vec::new(),
        };
        for (name, value) in std::env::vars_os() {
            source.take_environment(name, value);
        }
        match dotenvy::from_path_iter(".env") {
            Ok(lines) => source.take_dotenv(lines),
            Err(error) if error.not_found() => {}
            Err(error) => source.refuse_dotenv(&error),
        }
        source
    }

    /// Other programs' variables may be anything; ours must be UTF-8.
    fn take_environment(&mut self, name: OsString, value: OsString) {
        let Ok(name) = name.into_string() else { return };
        match value.into_string() {
            Ok(value) => {
                self.environment.insert(name, value);
            }
            Err(_) if VARIABLES.iter().any(|v| v.name == name || v.aliases.contains(&&*name)) => {
                self.problems.push(Problem { variable: name, message: "not UTF-8".to_owned() });
            }
            Err(_) => {}
        }
    }

    fn take_dotenv<R: io::Read>(&mut self, lines: dotenvy::Iter<R>) {
        for line in lines {
            match line {
                // As everywhere else with dotenv, the first of two wins.
                Ok((name, value)) => {
                    self.dotenv.entry(name).or_insert(value);
                }
                Err(error) => return self.refuse_dotenv(&error),
            }
        }
    }

    /// The parser's own message would quote the line, which may hold a secret.
    fn refuse_dotenv(&mut self, error: &dotenvy::Error) {
        let message = match error {
            dotenvy::Error::LineParse(_, at) => format!("a line is not NAME=value (column {at})"),
            dotenvy::Error::Io(error) => format!("cannot be read: {error}"),
            _ => "cannot be read".to_owned(),
        };
        self.problems.push(Problem { variable: ".env".to_owned(), message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_dotenv_is_reported_without_its_text() {
        let mut source = Source::from_environment([("A", "b")]);
        source.take_dotenv(dotenvy::from_read_iter(&b"OK=1\nOK=2\nJWT_SECRET='hush\n"[..]));
        assert_eq!(source.dotenv["OK"], "1");
        assert_eq!(source.problems.len(), 1);
        assert!(!source.problems[0].to_string().contains("hush"), "{}", source.problems[0]);
    }

    #[test]
    fn its_debug_shows_no_value() {
        let source = Source::from_environment([("JWT_SECRET", "hush")]);
        assert!(!format!("{source:?}").contains("hush"));
    }
}
