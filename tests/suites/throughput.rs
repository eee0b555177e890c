//! Bulk traffic through the VIP, both ways and both protocols, with every checksum right at both ends.

use anyhow::{Context, Result};
use lb_tests::agent::config::{Pool, Service};
use lb_tests::agent::{Agent, Config};
use lb_tests::capture::Capture;
use lb_tests::iperf::{self, Received};
use lb_tests::netns::Netns;
use lb_tests::topology::{Arms, Topology, VIP};

/// How many packets of each run tcpdump looks at, on each end.
const PACKETS: usize = 10_000;

/// Bits a second below which TCP crawls, as it does where merged frames are lost; any machine does many times as much.
const CRAWL: f64 = 5e6;
/// Megabits a second of UDP, of which one has to lose next to nothing.
const UDP_RATES: [u32; 4] = [50, 20, 8, 3];

#[test]
fn iperf3_runs_both_ways_one_arm() -> Result<()> {
    both_ways(Arms::One)
}

#[test]
fn iperf3_runs_both_ways_two_arm() -> Result<()> {
    both_ways(Arms::Two)
}

fn both_ways(arms: Arms) -> Result<()> {
    let topology = Topology::alone(arms, 1)?;
    let (client, backend) = (&topology.client, &topology.backends[0]);
    let _server = iperf::Server::start(backend)?;
    // One backend: iperf3's control connection and its data have to meet.
    let config = Config::new(&topology)
        .pool(Pool::new("iperf", &topology.backends, iperf::PORT))
        .service(Service::tcp("iperf-tcp", iperf::PORT, "iperf"))
        .service(Service::udp("iperf-udp", iperf::PORT, "iperf"));
    let agent = Agent::start(&topology.balancer.netns, &config)?;

    for options in [
        "--time 2",
        "--time 2 --reverse",
        "--time 1 --parallel 4",
        "--time 1 --reverse --parallel 4",
    ] {
        let received = watched(&topology, options)?;
        assert!(received.bits_per_second > CRAWL, "{options}: {received:?}");
    }
    for direction in ["", "--reverse"] {
        // A busy machine is late for a queue the more often the faster it fills; a balancer that loses a part of a flow
        // loses it at every rate.
        let mut lost = Vec::new();
        for rate in UDP_RATES {
            let options = format!("--udp --bitrate {rate}M --time 2 {direction}");
            let received = watched(&topology, &options)?;
            let sent = u64::from(rate) * 2_000_000 / 8 / 1_448;
            assert!(received.datagrams > sent / 2, "{options}: {received:?}");
            lost.push(received.lost * 100 / received.datagrams);
            if lost.last() < Some(&10) {
                break;
            }
        }
        assert!(
            lost.last() < Some(&10),
            "{direction}: {lost:?} % lost at {UDP_RATES:?} Mbit/s"
        );
    }

    for host in [client, backend] {
        no_checksum_errors(&host.netns)?;
    }
    let drops = agent.status()?.drops;
    assert!(drops.values().all(|count| *count == 0), "{drops:?}");
    Ok(())
}

/// A run of iperf3, the first packets of which are looked at on both ends.
fn watched(topology: &Topology, options: &str) -> Result<Received> {
    let (client, backend) = (&topology.client, &topology.backends[0]);
    let captures = [
        Capture::start(client.link(), PACKETS)?,
        Capture::start(backend.link(), PACKETS)?,
    ];
    let received = iperf::run(&client.netns, VIP, options).with_context(|| options.to_owned())?;
    for capture in captures {
        let seen = capture.stop()?;
        seen.check().with_context(|| options.to_owned())?;
        eprintln!(
            "{:?} {options}: {} packets looked at on {}",
            topology.arms, seen.packets, seen.place
        );
    }
    eprintln!(
        "{:?} {options}: {:.2} Gb/s, {received:?}",
        topology.arms,
        received.bits_per_second / 1e9
    );
    Ok(received)
}

/// The kernel's own counts of wrong checksums.
fn no_checksum_errors(netns: &Netns) -> Result<()> {
    let counts = netns.exec("nstat -a -z -s")?;
    for count in [
        "TcpInCsumErrors",
        "UdpInCsumErrors",
        "IcmpInCsumErrors",
        "IpInHdrErrors",
    ] {
        let line = counts
            .lines()
            .find(|line| line.starts_with(count))
            .with_context(|| counts.clone())?;
        let value = line.split_whitespace().nth(1);
        assert_eq!(value, Some("0"), "{} in {}", line, netns.name());
    }
    Ok(())
}
