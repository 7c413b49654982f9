//! How many connections an address has, and whose address it is where a proxy stands between.
//!
//! What is counted: TCP connections of peers that are no trusted proxy; of what comes through one,
//! Engine.IO sessions and SSE streams, for such a proxy's connections are nobody's. An address of
//! IPv6 is its /64, which is what one customer has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The bits of an IPv6 address that tell its network.
const NETWORK: u128 = !0 << 64;

/// What addresses hold. It knows those only that hold something.
#[derive(Debug, Default)]
pub struct Addresses {
    /// 0: no limit.
    max: usize,
    proxies: Vec<IpNet>,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// The address has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many connections from this address")]
pub struct Crowded;

impl Addresses {
    /// At most `max` connections of each address; 0: no limit. What `proxies` say of whom they
    /// speak for is believed.
    pub fn new(max: usize, proxies: Vec<IpNet>) -> Self {
        Self { max, proxies, held: Mutex::default() }
    }

    /// Counts a TCP connection, until what is answered is dropped. `None` where it is not counted:
    /// there is no limit, or the peer is a trusted proxy.
    ///
    /// # Errors
    /// It is one too many.
    pub fn connect(self: &Arc<Self>, peer: IpAddr) -> Result<Option<AddressSlot>, Crowded> {
        if self.max == 0 || self.is_proxy(peer) { Ok(None) } else { self.take(peer).map(Some) }
    }

    /// Counts what a request opens, until what is answered is dropped. `None` where it is not
    /// counted: there is no limit, or the peer is no trusted proxy, so that its TCP connection
    /// is, or the proxy does not say who is behind it.
    ///
    /// # Errors
    /// It is one too many.
    pub fn open(
        self: &Arc<Self>,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Option<AddressSlot>, Crowded> {
        if self.max == 0 || !self.is_proxy(peer.ip()) {
            return Ok(None);
        }
        self.client(headers).map(|client| self.take(client)).transpose()
    }

    /// The last address in `X-Forwarded-For` that is no trusted proxy: each proxy adds whom it was
    /// asked by, so that what stands before that is the client's own invention.
    fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let named = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for name in named {
            let address = address(std::str::from_utf8(name).ok()?)?;
            if !self.is_proxy(address) {
                return Some(address);
            }
        }
        None
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Result<AddressSlot, Crowded> {
        let address = network_of(address);
        let mut held = self.held();
        let count = held.entry(address).or_default();
        if *count >= self.max {
            return Err(Crowded);
        }
        *count += 1;
        Ok(AddressSlot { addresses: self.clone(), address })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of an address until this is dropped.
#[derive(Debug)]
pub struct AddressSlot {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.addresses.held().entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What counts as one address.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address => address,
    }
}

/// As proxies write it: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(max: usize) -> Arc<Addresses> {
        let proxies = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
        Arc::new(Addresses::new(max, proxies.to_vec()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_and_is_forgotten_with_its_last() {
        let addresses = addresses(2);
        let first = addresses.connect(ip("192.0.2.1")).unwrap();
        let second = addresses.connect(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(addresses.connect(ip("192.0.2.1")).unwrap_err(), Crowded);
        assert!(addresses.connect(ip("192.0.2.2")).unwrap().is_some());
        drop(first);
        let third = addresses.connect(ip("192.0.2.1")).unwrap();
        assert!(third.is_some() && addresses.connect(ip("192.0.2.1")).is_err());
        drop((second, third));
        assert!(addresses.held().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let addresses = addresses(1);
        let _held = addresses.connect(ip("2001:db8:2:3::1")).unwrap();
        assert!(addresses.connect(ip("2001:db8:2:3:ffff::9")).is_err());
        assert!(addresses.connect(ip("2001:db8:2:4::1")).is_ok());
    }

    #[test]
    fn a_proxys_own_connections_are_nobodys() {
        let addresses = addresses(1);
        for proxy in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::7"] {
            assert!(addresses.connect(ip(proxy)).unwrap().is_none(), "{proxy}");
        }
        assert!(addresses.held().is_empty());
    }

    #[test]
    fn whoever_stands_last_and_is_no_proxy_is_the_client() {
        let client = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (FORWARDED_FOR, line.parse().unwrap()));
            addresses(1).client(&lines.collect())
        };
        for (lines, expected) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["192.0.2.1, 10.0.0.7"], Some("192.0.2.1")),
            (&["198.51.100.9, 192.0.2.1,10.0.0.7"], Some("192.0.2.1")),
            (&["198.51.100.9", "192.0.2.1", "10.0.0.7, 10.0.0.8"], Some("192.0.2.1")),
            (&["nonsense, 192.0.2.1:4711"], Some("192.0.2.1")),
            (&["[2001:db8:2::5]:4711, 2001:db8:1::1"], Some("2001:db8:2::5")),
            (&["[2001:db8:2::5]"], Some("2001:db8:2::5")),
            (&["192.0.2.1, unknown"], None),
            (&["10.0.0.7"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(client(lines), expected.map(ip), "{lines:?}");
        }
    }

    #[test]
    fn only_a_proxy_is_believed() {
        let addresses = addresses(1);
        let headers: HeaderMap =
            [(FORWARDED_FOR, "192.0.2.1".parse().unwrap())].into_iter().collect();
        let from = |peer: &str| SocketAddr::new(ip(peer), 4711);
        assert!(addresses.open(from("198.51.100.1"), &headers).unwrap().is_none());
        let _held = addresses.open(from("10.0.0.7"), &headers).unwrap().unwrap();
        assert_eq!(addresses.open(from("10.0.0.8"), &headers).unwrap_err(), Crowded);
        assert!(addresses.open(from("198.51.100.1"), &headers).unwrap().is_none());
        assert_eq!(addresses.connect(ip("192.0.2.1")).unwrap_err(), Crowded, "counted together");
    }

    #[test]
    fn zero_is_no_limit() {
        let addresses = addresses(0);
        assert!((0..9).all(|_| addresses.connect(ip("192.0.2.1")).unwrap().is_none()));
    }
}
