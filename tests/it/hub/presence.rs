//! An operator's word, and users who come and go.

use std::sync::atomic::Ordering;

use serde_json::json;
use tokencast::adapter::{Feed, News, SharedMemory};
use tokencast::domain::{PresenceChange, Timestamp, UserId};
use tokencast::hub::{Standing, Start};

use super::reader::TestReader;
use super::{memory, node, node_on, plain, session, watch};

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn came(id: &str) -> PresenceChange {
    PresenceChange { user: user(id), online: true, last_seen_at: Timestamp::now() }
}

#[tokio::test]
async fn every_device_of_a_user_is_disconnected_and_nobody_elses() {
    let node = node(&SharedMemory::default());
    let (dialects, _) = plain::two();
    let plain = dialects.by_name("plain").unwrap();
    let devices = [TestReader::of("bob", plain), TestReader::of("bob", plain)];
    let (gone, ada) = (TestReader::of("bob", plain), TestReader::of("ada", plain));
    for reader in [&devices[0], &devices[1], &gone, &ada, &devices[0]] {
        node.hub.arrive(reader.clone());
    }
    node.hub.depart(gone.number());
    node.hub.depart(gone.number());
    let times = |reader: &TestReader| reader.disconnected.load(Ordering::SeqCst);

    assert_eq!(node.hub.disconnect(&user("bob")), 2);
    assert_eq!(node.hub.disconnect(&user("nobody")), 0);
    node.lossy.news(News::Disconnect { user: user("bob") });
    assert_eq!(devices.each_ref().map(|device| times(device)), [2, 2]);
    assert_eq!((times(&gone), times(&ada)), (0, 0));

    for device in &devices {
        node.hub.depart(device.number());
    }
    assert_eq!(node.hub.disconnect(&user("bob")), 0);
}

#[tokio::test]
async fn who_shares_a_session_hears_once_that_a_user_came() {
    let (dialects, counted) = plain::two();
    let (plain, other) = (dialects.by_name("plain").unwrap(), dialects.by_name("other").unwrap());
    let node = node_on(memory(&SharedMemory::default()), dialects);
    let sessions = [session(), session(), session()];
    let ada = TestReader::of("ada", plain);
    for session in &sessions[..2] {
        watch(&node, session, &ada, Standing::Belongs).await;
    }
    let [guest, eve, bob, full, held, elsewhere] = ["guest", "eve", "bob", "full", "held", "dan"]
        .map(|user| TestReader::of(user, if user == "eve" { other } else { plain }));
    for (reader, standing) in [
        (&guest, Standing::Guest),
        (&eve, Standing::Belongs),
        (&bob, Standing::Belongs),
        (&full, Standing::Belongs),
    ] {
        watch(&node, &sessions[0], reader, standing).await;
    }
    full.full.store(true, Ordering::SeqCst);
    node.hub.join(&sessions[1], held.clone(), Standing::Belongs, Start::Now(&[]), 0).await.unwrap();
    watch(&node, &sessions[2], &elsewhere, Standing::Belongs).await;

    let shared = vec![sessions[0].clone(), sessions[1].clone(), session()];
    node.lossy.news(News::Presence { change: came("bob"), sessions: shared });
    let told = [("presence".to_owned(), json!({ "user": "bob", "online": true }))];
    for reader in [&ada, &guest, &eve] {
        assert_eq!(reader.take(), told);
    }
    full.full.store(false, Ordering::SeqCst);
    node.hub.resume(full.number(), &sessions);
    for reader in [&bob, &full, &held, &elsewhere] {
        assert!(reader.take().is_empty(), "{:?}", reader.number());
    }
    for dialect in counted {
        assert_eq!(dialect.encoded.load(Ordering::SeqCst), 1, "once per dialect");
    }
}
