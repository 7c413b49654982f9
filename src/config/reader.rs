//! Finds a variable's text by precedence, and collects what is wrong instead of stopping at it.

use std::path::Path;

use super::parse::Expected;
use super::{Kind, Problem, Source, Support, Unset, Variable};

/// Reads variables of the table from a source.
pub(super) struct Reader<'a> {
    source: &'a Source,
    /// What is wrong so far.
    pub(super) problems: Vec<Problem>,
    /// What has no effect or is risky.
    pub(super) warnings: Vec<String>,
    /// The variables asked for, so that a test can compare with the table.
    #[cfg(test)]
    pub(super) asked: std::collections::BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self {
            source,
            problems: source.problems.clone(),
            warnings: Vec::new(),
            #[cfg(test)]
            asked: std::collections::BTreeSet::new(),
        }
    }

    /// Notes that `name` is wrong.
    pub(super) fn refuse(&mut self, name: &str, message: impl Into<String>) {
        self.problems.push(Problem { variable: name.to_owned(), message: message.into() });
    }

    /// Notes something that does not stop the start.
    pub(super) fn warn(&mut self, name: &str, message: &str) {
        self.warnings.push(format!("{name}: {message}"));
    }

    /// The value of a variable that has a default; that one where the text is wrong.
    pub(super) fn value<T: PartialEq>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> T {
        let variable = self.variable(name);
        let Unset::Is(default) = variable.unset else {
            panic!("{name} has no default in the table: read it with `given`");
        };
        let default = || parse(default).expect("a test parses every default of the table");
        let Some(value) = self.parsed(variable, &parse) else { return default() };
        self.check_support(variable, value != default());
        value
    }

    /// The value of a variable that was set, and right.
    pub(super) fn given<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let variable = self.variable(name);
        let value = self.parsed(variable, &parse);
        self.check_support(variable, value.is_some());
        value
    }

    /// The word of a [`Kind::Choice`]; `None` only where it was not set and has no fixed default.
    pub(super) fn choice(&mut self, name: &'static str) -> Option<&'static str> {
        let variable = self.variable(name);
        let Kind::Choice(words) = variable.kind else {
            panic!("{name} is no choice in the table");
        };
        let parse = |text: &str| {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            word.copied().ok_or_else(|| words.join(" or "))
        };
        match variable.unset {
            Unset::Is(_) => Some(self.value(name, parse)),
            _ => self.given(name, parse),
        }
    }

    /// Whether a variable was set at all, right or wrong.
    pub(super) fn is_set(&self, name: &str) -> bool {
        Variable::find(name).is_some_and(|variable| !matches!(self.find(variable), Ok(None)))
    }

    /// A file's text; a problem of `name` where it cannot be read.
    pub(super) fn file(&mut self, name: &str, path: &str) -> Option<String> {
        match (self.source.files)(Path::new(path)) {
            Ok(text) => Some(text),
            Err(error) => {
                self.refuse(name, format!("{path:?} cannot be read: {error}"));
                None
            }
        }
    }

    fn variable(&mut self, name: &'static str) -> &'static Variable {
        #[cfg(test)]
        self.asked.insert(name);
        Variable::find(name).expect("only names of the table are asked for")
    }

    fn parsed<T>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let (name, text) = match self.find(variable) {
            Ok(found) => found?,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        match parse(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                // Where a URL is asked for, somebody's password may stand in what is none.
                let message = if variable.secret || text.contains(['@', '?']) {
                    format!("expected {expected}")
                } else {
                    format!("{} is wrong, expected {expected}", quoted(&text))
                };
                self.refuse(&name, message);
                None
            }
        }
    }

    fn check_support(&mut self, variable: &Variable, differs: bool) {
        if !differs {
            return;
        }
        match variable.support {
            Support::Full => {}
            Support::NotYet => self.warn(variable.name, "has no effect in this version"),
        }
    }

    /// The text of a variable and the name it was found by. Empty is unset, and hides what is
    /// behind it.
    fn find(&self, variable: &Variable) -> Result<Option<(String, String)>, Problem> {
        let names = || std::iter::once(variable.name).chain(variable.aliases.iter().copied());
        let Source { flags, environment, dotenv, .. } = self.source;
        for place in [flags, environment, dotenv] {
            for name in names() {
                if let Some(text) = place.get(name) {
                    // A key is taken as it is: another program has to arrive at the same bytes.
                    let text = if variable.secret { text } else { text.trim() };
                    return Ok((!text.is_empty()).then(|| (name.to_owned(), text.to_owned())));
                }
            }
            for name in names() {
                let name = format!("{name}_FILE");
                if let Some(path) = place.get(&name).filter(|path| !path.trim().is_empty()) {
                    let text = (self.source.files)(Path::new(path.trim())).map_err(|error| {
                        let message = format!("{path:?} cannot be read: {error}");
                        Problem { variable: name.clone(), message }
                    })?;
                    let text = text.trim_end_matches(['\r', '\n']);
                    return Ok((!text.is_empty()).then(|| (name, text.to_owned())));
                }
            }
        }
        Ok(None)
    }
}

/// A text in quotes, on one line and not too long.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
