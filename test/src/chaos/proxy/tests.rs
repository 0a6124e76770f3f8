use super::*;

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // The other side may go at any time.
                _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn proxy(climate: Climate) -> Proxy {
    Proxy::open(Some(echo().await), climate, fastrand::Rng::with_seed(1)).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

#[tokio::test]
async fn in_calm_weather_everything_passes() {
    let proxy = proxy(Climate::Wild).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut from, mut to) = stream.split();
    let mut got = vec![0; sent.len()];
    let (written, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut got));
    written.unwrap();
    read.unwrap();
    assert_eq!(sent, got);
    assert_eq!(proxy.faults(), 0);
}

#[tokio::test]
async fn a_cut_ends_connections_and_lets_new_ones_in() {
    let proxy = proxy(Climate::Wild).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream).await.unwrap();
    proxy.order(Order::Cut);
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream).await.unwrap();
}

#[tokio::test]
async fn what_hangs_neither_passes_nor_ends_and_what_stalls_comes_back() {
    let proxy = proxy(Climate::Wild).await;
    let mut hung = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut hung).await.unwrap();
    proxy.order(Order::Hang);
    let mut stalled = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stalled).await.unwrap();
    proxy.order(Order::Stall(Duration::from_millis(50)));
    round_trip(&mut stalled).await.unwrap();
    hung.write_all(b"hello").await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(100), hung.read(&mut [0; 1])).await;
    assert!(silent.is_err(), "it came back: {silent:?}");
}

#[tokio::test]
async fn connections_are_refused_while_there_is_no_target_or_as_ordered() {
    let proxy = proxy(Climate::Mild).await;
    proxy.refuse(Duration::from_secs(3600));
    let refused = async || match TcpStream::connect(proxy.address()).await {
        Ok(mut stream) => round_trip(&mut stream).await.is_err(),
        Err(_) => true,
    };
    assert!(refused().await);
    proxy.set_stormy(false);
    assert!(!refused().await);
    proxy.lead_to(None);
    assert!(refused().await);
}

#[test]
fn every_fate_is_met_and_the_mild_climate_never_hangs() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut drawn = |climate| (0..1000).map(|_| Fate::draw(&mut rng, climate)).collect::<Vec<_>>();
    let wild = drawn(Climate::Wild);
    for what in ["Cut", "Stall", "Hang", "Nothing"] {
        assert!(wild.iter().any(|fate| format!("{:?}", fate.what).starts_with(what)), "{what}");
    }
    assert!(wild.iter().any(|fate| fate.delay.is_some()));
    assert!(drawn(Climate::Mild).iter().all(|fate| fate.what != What::Hang));
}
