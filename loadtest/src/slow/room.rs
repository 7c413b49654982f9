//! The readers of the room, and a look at the nodes meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Driver, LOOK_EVERY, Plan};
use crate::client::{Packet, Socket, packet};
use crate::http;
use crate::pace::Pace;
use crate::process::{Machine, Process};
use crate::transcript::Transcript;

/// How many readers come at once.
const SET_UP_AT_ONCE: usize = 16;
/// How often it is looked whether readers have everything.
const LOOK: Duration = Duration::from_millis(100);

/// One reader.
pub(super) struct Reader {
    pub is_slow: bool,
    heard: Arc<Mutex<Heard>>,
}

/// What a reader heard.
#[derive(Default)]
pub(super) struct Heard {
    pub transcript: Transcript,
    /// Why it hears nothing any more.
    pub ended: Option<String>,
    /// The longest time between two pings.
    pub ping_gap: Duration,
}

impl Reader {
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All readers.
pub(super) struct Room {
    readers: Vec<Reader>,
    /// Of the slow ones.
    pub pace: Pace,
    listening: JoinSet<()>,
}

impl Room {
    /// Connects them and joins the session. Slow ones are spread as the others are.
    pub async fn open(
        plan: &Plan,
        nodes: &[SocketAddr],
        jwt: &str,
        session: &str,
    ) -> anyhow::Result<Self> {
        let pace = Pace::default();
        let sockets: Vec<(u32, Socket)> = stream::iter(0..plan.clients)
            .map(|n| {
                let node = nodes[n as usize % nodes.len()];
                let pace = (n < plan.slow).then(|| pace.clone());
                async move {
                    let mut socket = match pace {
                        Some(pace) => Socket::connect_paced(node, jwt, pace).await?,
                        None => Socket::connect(node, jwt).await?,
                    };
                    socket.call("session:join", &json!({ "sessionId": session })).await?;
                    anyhow::Ok((n, socket))
                }
            })
            .buffer_unordered(SET_UP_AT_ONCE)
            .try_collect()
            .await
            .context("set up the room")?;
        let mut room = Self { readers: Vec::new(), pace, listening: JoinSet::new() };
        for (n, mut socket) in sockets {
            let reader = Reader { is_slow: n < plan.slow, heard: Arc::default() };
            let heard = reader.heard.clone();
            room.readers.push(reader);
            room.listening.spawn(async move {
                let error = listen(&mut socket, &heard).await;
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.ended = Some(format!("{error:#}"));
            });
        }
        Ok(room)
    }

    /// Waits until those that are slow, or those that are not, or all have everything that the
    /// driver said, or do not listen any more; not beyond the deadline.
    pub async fn finish(&self, driver: &Driver, slow: Option<bool>, deadline: Instant) {
        let has_all = |reader: &Reader| {
            let heard = reader.heard();
            let transcript = &heard.transcript;
            let is_complete = |message| transcript.answer(message).is_some_and(|a| a.is_complete);
            let answers = driver.answers.last().is_none_or(|message| is_complete(message));
            heard.ended.is_some() || (answers && transcript.messages.len() >= driver.sent.len())
        };
        while Instant::now() < deadline {
            let mut awaited =
                self.readers.iter().filter(|reader| slow.is_none_or(|slow| slow == reader.is_slow));
            if awaited.all(has_all) {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Closes all connections.
    pub fn close(mut self) -> Vec<Reader> {
        self.listening.abort_all();
        std::mem::take(&mut self.readers)
    }
}

/// Listens until the connection is lost, or something is said that cannot be.
async fn listen(socket: &mut Socket, heard: &Mutex<Heard>) -> anyhow::Error {
    loop {
        let text = match socket.receive().await {
            Ok(text) => text,
            Err(error) => return error,
        };
        let at = Instant::now();
        let Packet::Event(event) = packet(&text) else { continue };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.ping_gap = socket.ping_gap();
        if let Err(error) = heard.transcript.take(event, text.len(), at) {
            return error;
        }
    }
}

/// Looks at the nodes.
pub(super) struct Watch {
    nodes: Vec<Process>,
    others: Vec<Process>,
    metrics: Vec<SocketAddr>,
}

/// What was seen in a time.
#[derive(Debug)]
pub(super) struct Looked {
    /// The most memory that the nodes had together, in bytes.
    pub resident: u64,
    /// The most sockets that were behind.
    pub slow_sockets: u64,
    /// CPU that the nodes used together, in cores.
    pub nodes_cores: f64,
    /// CPU that strangers used on the machine, in cores.
    pub others_cores: f64,
}

impl Watch {
    pub fn new(nodes: Vec<Process>, others: Vec<Process>, metrics: Vec<SocketAddr>) -> Self {
        Self { nodes, others, metrics }
    }

    /// Memory of all nodes, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.nodes.iter().map(|node| Ok(node.resident()?.now)).sum()
    }

    /// The most that each node ever had, added up.
    pub fn peak(&self) -> anyhow::Result<u64> {
        self.nodes.iter().map(|node| Ok(node.resident()?.peak)).sum()
    }

    /// Looks at them in this time. Every phase is looked at alike, since looking disturbs.
    pub async fn look(&self, time: Range<Instant>) -> anyhow::Result<Looked> {
        sleep_until(time.start).await;
        let (cpu, machine) = (self.cpu()?, Machine::now()?);
        let (mut resident, mut slow_sockets) = (0, 0);
        let mut at = time.start;
        while at <= time.end {
            sleep_until(at).await;
            resident = resident.max(self.resident()?);
            slow_sockets = slow_sockets.max(self.slow_sockets().await?);
            at += LOOK_EVERY;
        }
        sleep_until(time.end).await;
        let after = self.cpu()?;
        let seconds = (time.end - time.start).as_secs_f64();
        let used = after.0 + after.1 - cpu.0 - cpu.1;
        Ok(Looked {
            resident,
            slow_sockets,
            nodes_cores: (after.0 - cpu.0) / seconds,
            others_cores: ((Machine::now()?.busy - machine.busy - used) / seconds).max(0.0),
        })
    }

    /// CPU seconds of the nodes, and of the others that belong to the test.
    fn cpu(&self) -> anyhow::Result<(f64, f64)> {
        let sum = |all: &[Process]| all.iter().map(Process::cpu_seconds).sum::<Result<f64, _>>();
        Ok((sum(&self.nodes)?, sum(&self.others)?))
    }

    /// Why sockets were disconnected, and how many.
    pub async fn disconnects(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut reasons = BTreeMap::new();
        for address in &self.metrics {
            let text = http::text(*address, "/metrics").await?;
            for line in text.lines().filter(|line| line.starts_with("socket_io_disconnect_total{"))
            {
                let reason =
                    line.split_once("reason=\"").and_then(|(_, rest)| rest.split_once('"'));
                let count = line.rsplit_once(' ').and_then(|(_, count)| count.parse::<f64>().ok());
                if let (Some((reason, _)), Some(count)) = (reason, count) {
                    *reasons.entry(reason.to_owned()).or_default() += count as u64;
                }
            }
        }
        Ok(reasons)
    }

    async fn slow_sockets(&self) -> anyhow::Result<u64> {
        let mut sum = 0.0;
        for address in &self.metrics {
            let text = http::text(*address, "/metrics").await?;
            let value = text.lines().find_map(|line| line.strip_prefix("socket_io_slow_sockets "));
            sum += value.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_default();
        }
        Ok(sum as u64)
    }
}
