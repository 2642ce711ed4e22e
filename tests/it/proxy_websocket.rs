//! Stories of WebSockets through the hub: where they are declared, within their bounds, and from end to end.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use trueup::adapters::clock::SystemClock;
use trueup::adapters::hubdb::HubDb;
use trueup::hub::Bounds;
use trueup::model::id::Name;
use trueup::model::route::Exposure;
use trueup::ports::clock::Clock;
use trueup::ports::hub::State;
use trueup::ports::tokens::TokenStore;

use crate::proxy_stage::{Bare, Raw, Room, status, upstream};
use crate::stage::{DEADLINE, wait_until};
use crate::web::Call;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

fn within<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("in time") })
}

async fn open(port: u16, path: &str, headers: &[(&'static str, &str)]) -> Result<(Socket, String), u16> {
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    match connect_async(request).await {
        Ok((socket, response)) => {
            let protocol = response.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
            Ok((socket, protocol.unwrap_or_default().to_owned()))
        }
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn back_and_forth(socket: &mut Socket, text: String) {
    socket.send(Message::text(text.clone())).await.expect("sent");
    let back = socket.next().await.expect("more").expect("a message");
    assert_eq!(back, Message::text(text));
}

#[test]
fn messages_pass_both_ways_with_their_protocol() {
    let room = Room::usual();
    within(async {
        let (mut socket, protocol) =
            open(room.hub, "/echo/ws", &[("sec-websocket-protocol", "chat.v2, chat.v1")]).await.expect("open");
        assert_eq!(protocol, "chat.v2");
        for size in [0, 1, 125, 126, 65_535, 65_536, 900_000] {
            back_and_forth(&mut socket, "x".repeat(size)).await;
        }
        socket.send(Message::Ping("hi".into())).await.expect("sent");
        assert_eq!(socket.next().await.expect("more").expect("a message"), Message::Pong("hi".into()));
        socket.close(None).await.expect("closed");
        while let Some(Ok(_)) = socket.next().await {}
    });
}

#[test]
fn a_restart_of_the_module_closes_them_and_the_end_of_a_client_reaches_it() {
    let room = Room::usual();
    within(async {
        let (mut socket, _) = open(room.hub, "/echo/ws", &[]).await.expect("open");
        back_and_forth(&mut socket, "before".to_owned()).await;
        let restart = tokio::task::block_in_place(|| room.stage.run(&["restart", "echo"]));
        assert_eq!(restart.code, 0, "{}", restart.err);
        let end = socket.next().await;
        assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
        let (mut socket, _) = open(room.hub, "/echo/ws", &[]).await.expect("open again");
        back_and_forth(&mut socket, "after".to_owned()).await;
    });
    let to_module = || crate::proxy_stage::sockets_to(room.port).get("01").copied().unwrap_or_default();
    wait_until("the module's side to be closed as well", || to_module() <= 4);
}

#[test]
fn only_where_they_are_declared() {
    let room = Room::new("[ { path: /echo } ]", "");
    assert_eq!(within(open(room.hub, "/echo/ws", &[])).err(), Some(426));
    let request = "GET /echo/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n\r\n";
    let answer = Raw::open(room.hub).say(request).all();
    assert!(answer.contains("\"websocket_not_supported\""), "{answer}");
    // Another protocol is no WebSocket: it is an ordinary request, and the upgrade goes no further.
    let request = "GET /echo/ask HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, close\r\nupgrade: h2c\r\n\r\n";
    let answer = Raw::open(room.hub).say(request).all();
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(!answer.contains("h2c"), "{answer}");
}

#[test]
fn what_a_module_answers_instead_is_passed_on() {
    let room = Room::usual();
    assert_eq!(within(open(room.hub, "/echo/nothing", &[])).err(), Some(404));
}

#[test]
fn one_client_and_all_together_have_bounds() {
    let room = Room::usual();
    let mut open_ones = Vec::new();
    within(async {
        for _ in 0..32 {
            open_ones.push(open(room.hub, "/echo/ws", &[]).await.expect("open").0);
        }
        assert_eq!(open(room.hub, "/echo/ws", &[]).await.err(), Some(429));
        let other = [("x-forwarded-for", "192.0.2.9")];
        let (mut socket, _) = open(room.hub, "/echo/ws", &other).await.expect("of another client");
        back_and_forth(&mut socket, "fine".to_owned()).await;
        open_ones.pop();
    });
    wait_until("room for one more", || within(open(room.hub, "/echo/ws", &[])).is_ok());
}

#[test]
fn silence_ends_them() {
    let bounds = Bounds { websocket_idle: Duration::from_millis(300), ..Bounds::default() };
    let room = Room::usual();
    let bare = Bare::new(bounds, None).with("echo", room.port, State::Ready).tell();
    within(async {
        let (mut socket, _) = open(bare.hub, "/echo/ws", &[]).await.expect("open");
        back_and_forth(&mut socket, "hi".to_owned()).await;
        let end = socket.next().await;
        assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    });
}

#[test]
fn nothing_outlives_the_token_that_it_needed() {
    let bounds = Bounds { recheck: Duration::from_millis(50), ..Bounds::default() };
    let room = Room::usual();
    let mut bare = Bare::new(bounds, None);
    let mut echo = upstream("echo", room.port, State::Ready);
    echo.routes[0].exposure = Exposure::AuthRequired;
    bare.wish.upstreams.insert(Name::new("echo").expect("a name"), Arc::new(echo));
    bare.wish.origin = format!("http://127.0.0.1:{}", bare.hub);
    std::fs::create_dir_all(&bare.wish.home).expect("a home");
    let bare = bare.tell();
    let file = bare.wish.home.join("operator.token");
    let read = || std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
    wait_until("the token of the operator", || !read().is_empty());
    let bearer = format!("Bearer {}", read());
    let headers = [("Authorization", bearer.as_str())];
    let call = |path| Call { port: bare.hub, method: "GET", path, headers: &headers, body: None };
    let tokens = call("/api/auth/tokens").send().status(200).json();
    let mut watch = call("/api/v1/watch").stream();
    assert_eq!((watch.status, watch.event().expect("a snapshot").0.as_str()), (200, "snapshot"));
    let mut socket = within(async {
        assert_eq!(open(bare.hub, "/echo/ws", &[]).await.err(), Some(401));
        let (mut socket, _) = open(bare.hub, "/echo/ws", &[("authorization", &bearer)]).await.expect("open");
        // It is looked at several times, and goes on.
        for number in 0..5 {
            back_and_forth(&mut socket, number.to_string()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        socket
    });
    // Another process revokes it.
    let store = HubDb::open(&bare.folder.path().join("hub.db"), true).expect("the database");
    let jti = tokens["tokens"][0]["jti"].as_str().expect("its id");
    assert!(store.revoke(jti, SystemClock.wall()).expect("revoked").is_some());
    let (name, _, why) = watch.event().expect("a last word");
    assert_eq!((name.as_str(), &why), ("end", &json!({ "reason": "the token does not count any more" })));
    assert!(watch.event().is_none());
    within(async {
        let end = socket.next().await;
        assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    });
}
