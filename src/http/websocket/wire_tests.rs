use std::{future::poll_fn, net, time::Duration};

use futures_util::FutureExt;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::*;

const BOUND: usize = 1 << 20;

/// A wire, and its client's end of the socket.
async fn wire(max_bytes: usize) -> (SocketWire, TcpStream) {
    let listener = TcpListener::bind((net::Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (
        SocketWire::new(accepted.unwrap().0, max_bytes),
        client.unwrap(),
    )
}

fn text(n: usize) -> Bytes {
    frame::text(format!("{n:06}").repeat(1_000).as_bytes())
}

/// Pushes frames until the socket takes no more, and more than that waits; how many.
fn fill(wire: &SocketWire, bytes: usize) -> usize {
    for n in 0..100_000 {
        if wire.outbox.borrow().bytes > bytes {
            return n;
        }
        wire.push(&text(n));
    }
    panic!("the socket takes everything");
}

/// All that the wire sends until its end, while it is flushed.
async fn received(wire: &SocketWire, client: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = client.read_to_end(&mut all);
    let flush = async {
        poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
        std::future::pending::<()>().await;
    };
    let within = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::select! {
            read = read => read.unwrap(),
            () = flush => 0,
        }
    });
    within.await.expect("the wire ends");
    all
}

#[actix_rt::test]
async fn frames_keep_their_order_through_partial_writes() {
    let (wire, mut client) = wire(BOUND).await;
    let mut count = fill(&wire, 0);
    // The socket has space again, and yet what comes next has to wait for what waits.
    let mut got = Vec::new();
    let read = async {
        loop {
            client.read_buf(&mut got).await.unwrap();
        }
    };
    tokio::select! {
        ready = wire.io().writable() => ready.unwrap(),
        () = read => unreachable!("it goes on for ever"),
    }
    for _ in 0..3 {
        wire.push(&text(count));
        count += 1;
    }
    wire.close(Disconnect::SHUTDOWN);
    wire.push(&text(0));
    let mut owed: Vec<u8> = (0..count).flat_map(text).collect();
    owed.extend(frame::close(Disconnect::SHUTDOWN));
    got.extend(received(&wire, &mut client).await);
    assert!(got == owed);
    assert_eq!(wire.outbox.borrow().bytes, 0);
}

#[actix_rt::test]
async fn a_client_that_does_not_read_gets_the_frame_it_is_in_and_is_closed_as_slow() {
    let (wire, mut client) = wire(60_000).await;
    let mut count = fill(&wire, 20_000);
    while wire.closing().is_none() {
        wire.push(&text(count));
        count += 1;
        assert!(wire.outbox.borrow().bytes <= 60_000);
    }
    assert_eq!(wire.closing(), Some(Disconnect::SLOW));
    let got = received(&wire, &mut client).await;
    let close = frame::close(Disconnect::SLOW);
    let frames = got.strip_suffix(&close[..]).expect("the close comes last");
    let whole = frames.len() / text(0).len();
    assert!(whole < count);
    let owed: Vec<u8> = (0..whole).flat_map(text).collect();
    assert!(frames == owed, "whole frames, in order");
}

#[actix_rt::test]
async fn nothing_is_between_the_frames_that_were_begun_and_a_close_for_not_reading() {
    for why in [Disconnect::SLOW, Disconnect::NO_PONG] {
        let (wire, _client) = wire(BOUND).await;
        fill(&wire, 20_000);
        wire.close(why);
        let outbox = wire.outbox.borrow();
        assert!(outbox.frames.len() <= 2);
        assert_eq!(outbox.frames.back(), Some(&frame::close(why)));
        let queued: usize = outbox.frames.iter().map(Bytes::len).sum();
        assert_eq!(outbox.bytes, queued - outbox.written);
    }
}

#[actix_rt::test]
async fn the_first_reason_to_close_is_the_one_that_is_told() {
    let (wire, mut client) = wire(BOUND).await;
    wire.close(Disconnect::STALE);
    wire.close(Disconnect::SLOW);
    let got = received(&wire, &mut client).await;
    assert_eq!(got, frame::close(Disconnect::STALE));
}

#[actix_rt::test]
async fn a_page_is_taken_when_nothing_waits_and_its_lack_is_told_once() {
    let (wire, mut client) = wire(BOUND).await;
    assert!(wire.can_take_page());
    fill(&wire, 20_000);
    assert!(!wire.can_take_page());
    let flush = || poll_fn(|cx| wire.poll_flush(cx));
    assert!(flush().now_or_never().is_none(), "something waits");
    let mut sink = vec![0; 1 << 16];
    let reading = async { while client.read(&mut sink).await.unwrap() > 0 {} };
    tokio::select! {
        wanted = flush() => assert!(wanted.unwrap()),
        () = reading => panic!("the wire ended"),
    }
    assert!(wire.can_take_page());
    assert!(!flush().await.unwrap(), "nobody wants to know");
}

#[actix_rt::test]
async fn a_wire_that_closes_takes_no_page() {
    let (wire, mut client) = wire(BOUND).await;
    wire.close(Disconnect::SHUTDOWN);
    received(&wire, &mut client).await;
    assert!(
        !wire.can_take_page(),
        "its replay would run on into nothing"
    );
}

#[actix_rt::test]
async fn a_broken_socket_ends_the_session() {
    let (wire, client) = wire(BOUND).await;
    fill(&wire, 20_000);
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert!(poll_fn(|cx| wire.poll_flush(cx)).await.is_err());
    wire.push(&text(0));
}
