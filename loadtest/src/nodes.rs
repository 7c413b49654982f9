//! Nodes under test: started here as child processes, or there already.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::http;

/// How long a node may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How much of a failed node's log is shown.
const LOG_LINES: usize = 20;

/// Nodes that this process started. Dropping them stops them.
pub struct Nodes {
    folder: PathBuf,
    running: Vec<Node>,
}

struct Node {
    name: String,
    address: SocketAddr,
    child: Child,
}

impl Nodes {
    /// None yet. Their logs and agents file lie in a folder of their own, removed in the end.
    ///
    /// # Errors
    /// Where the folder or the file cannot be written.
    pub fn new(agents: &str) -> anyhow::Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("tokencast-loadtest.{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(folder.join("agents.toml"), agents).context("write the agents file")?;
        Ok(Self { folder, running: Vec::new() })
    }

    /// Starts a node of the program `bin` on a free port of loopback. `settings` are its
    /// variables; what else stands in the environment reaches it too.
    ///
    /// # Errors
    /// Where the program cannot be run.
    pub fn start(
        &mut self,
        name: &str,
        bin: &Path,
        settings: &BTreeMap<&str, String>,
    ) -> anyhow::Result<SocketAddr> {
        let address = free_address()?;
        let log = File::create(self.log(name)).context("make a log file")?;
        let child = Command::new(bin)
            .arg("serve")
            .current_dir(&self.folder)
            .env("METRICS_PORT", "0")
            .envs(settings)
            .env("HOST", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .env("AGENTS_FILE", self.folder.join("agents.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share a log file")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("run {}", bin.display()))?;
        self.running.push(Node { name: name.to_owned(), address, child });
        Ok(address)
    }

    /// Waits until all are ready.
    ///
    /// # Errors
    /// Where one does not become so in time; its last log lines are shown.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for at in 0..self.running.len() {
            while !is_ready(self.running[at].address).await {
                let node = &mut self.running[at];
                let ended = node.child.try_wait().context("look at a node")?;
                if ended.is_some() || Instant::now() > deadline {
                    let name = node.name.clone();
                    bail!("{name} is not ready ({ended:?}); its log ends:\n{}", self.tail(&name));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Tells all to stop and waits; those that do not are killed.
    pub async fn stop(mut self) {
        for node in &self.running {
            // Without `unsafe` or another dependency there is no other way to send SIGTERM.
            let told = Command::new("kill").arg(node.child.id().to_string()).status();
            if !told.is_ok_and(|status| status.success()) {
                eprintln!("{}: could not be told to stop", node.name);
            }
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline
            && self.running.iter_mut().any(|node| matches!(node.child.try_wait(), Ok(None)))
        {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn tail(&self, name: &str) -> String {
        let log = fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.running {
            // Both fail only for a child that has ended and was waited for.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The `host:port` of an `http://` URL, resolved.
///
/// # Errors
/// Where it is no such URL, or the name has no address.
pub fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    use std::net::ToSocketAddrs;
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host.split(['/', '?']).next().unwrap_or_default();
    let found = host.to_socket_addrs().with_context(|| format!("find the address in {host}"))?;
    found.into_iter().next().with_context(|| format!("{host} has no address"))
}

/// An address of loopback on which nobody listens.
///
/// # Errors
/// Where there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    listener.local_addr().context("find a free port")
}

async fn is_ready(address: SocketAddr) -> bool {
    http::text(address, "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
