//! What processes cost, from `/proc`: who listens on a port, and how much CPU it has used.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

/// Linux shows times in these units on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process whose CPU time is watched.
#[derive(Debug, Clone)]
pub struct Process {
    /// What the report calls it.
    pub name: String,
    pid: u32,
    counted: Counted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Alone,
    /// PostgreSQL has a process for each connection.
    WithChildren,
}

impl Process {
    /// The process that listens on a port of this machine, its children included.
    ///
    /// # Errors
    /// Where none does, or it is another user's and cannot be told.
    pub fn listening_on(name: &str, port: u16) -> anyhow::Result<Self> {
        let inodes = listening_sockets(port)?;
        let mut pids = pids()?;
        // Of a server and its children, which inherit its socket, the oldest is the server.
        pids.sort_by_key(|pid| started_at(*pid).unwrap_or(u64::MAX));
        let found = pids.into_iter().find(|pid| holds_one_of(*pid, &inodes));
        let pid = found.with_context(|| format!("{name}: nothing found on port {port}"))?;
        Ok(Self { name: name.to_owned(), pid, counted: Counted::WithChildren })
    }

    /// How much memory it has, its children apart.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn resident(&self) -> anyhow::Result<Resident> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .with_context(|| format!("{} has ended", self.name))?;
        let bytes = |field: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
            Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
        };
        let (now, peak) = (bytes("VmRSS:"), bytes("VmHWM:"));
        Ok(Resident { now: now.unwrap_or_default(), peak: peak.unwrap_or_default() })
    }

    /// This process, without the nodes that it may have started.
    pub fn own(name: &str) -> Self {
        Self { name: name.to_owned(), pid: std::process::id(), counted: Counted::Alone }
    }

    /// CPU time so far, in seconds, of user and kernel together. Of children, also of those that
    /// have ended and were waited for.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let own = Stat::of(self.pid).with_context(|| format!("{} has ended", self.name))?;
        if self.counted == Counted::Alone {
            return Ok(own.own as f64 / TICKS_PER_SECOND);
        }
        let running = pids()?.into_iter().filter_map(Stat::of);
        let children: u64 = running.filter(|stat| stat.parent == self.pid).map(|s| s.own).sum();
        Ok((own.own + own.ended_children + children) as f64 / TICKS_PER_SECOND)
    }
}

/// Memory of a process that is in use, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The most that there ever was.
    pub peak: u64,
}

/// CPU time of the whole machine since its start, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// All but idling and waiting.
    pub busy: f64,
    /// What its host gave to others.
    pub stolen: f64,
}

impl Machine {
    /// As `/proc/stat` says.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> =
            line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        let [user, nice, system, _idle, _waiting, irq, soft_irq, stolen, ..] = ticks[..] else {
            bail!("/proc/stat: {line}");
        };
        let busy = (user + nice + system + irq + soft_irq) / TICKS_PER_SECOND;
        Ok(Self { busy, stolen: stolen / TICKS_PER_SECOND })
    }

    /// The load average over a minute.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn load() -> anyhow::Result<f64> {
        let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
        let first = text.split(' ').next().unwrap_or_default();
        first.parse().context("read /proc/loadavg")
    }

    /// How many cores this process may use.
    pub fn cores() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }
}

/// What `/proc/<pid>/stat` says (proc_pid_stat(5)).
struct Stat {
    parent: u32,
    own: u64,
    ended_children: u64,
    started_at: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything. The third field follows it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(4)?).ok()?,
            own: number(14)? + number(15)?,
            ended_children: number(16)? + number(17)?,
            started_at: number(22)?,
        })
    }
}

fn started_at(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.started_at)
}

fn pids() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("read /proc: Linux only")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// The inodes of the sockets that listen on a port.
fn listening_sockets(port: u16) -> anyhow::Result<HashSet<String>> {
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(lines) = fs::read_to_string(table) else { continue };
        for line in lines.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..] else { continue };
            if local.ends_with(&format!(":{port:04X}")) {
                inodes.insert(inode.to_owned());
            }
        }
    }
    if inodes.is_empty() {
        bail!("nothing listens on port {port}");
    }
    Ok(inodes)
}

fn holds_one_of(pid: u32, inodes: &HashSet<String>) -> bool {
    let Ok(open) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    let mut targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.contains(inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let process = Process::listening_on("own", port).unwrap();
        assert_eq!(process.pid, std::process::id());
        assert!(process.cpu_seconds().unwrap() >= 0.0);
        let resident = process.resident().unwrap();
        assert!(resident.now > 0 && resident.peak >= resident.now, "{resident:?}");
        drop(listener);
        assert!(Process::listening_on("own", port).is_err());
    }
}
