//! What is asked of rtnetlink and what it tells, in terms of this crate. No state and no decisions.

use std::{future::Future, io, net::IpAddr, pin::Pin, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream::Stream};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressProtocol},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

use super::{
    Error,
    table::{AddressRow, LinkRow, NeighbourKey, NeighbourRow, RouteAnswer, Usability},
};

/// How long an answer may take; the kernel answers within the call, so this guards against a lost one.
const PATIENCE: Duration = Duration::from_secs(5);

/// A change that the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A link is there, new or changed.
    Link(LinkRow),
    /// The link of this index is gone.
    LinkGone(u32),
    /// An address is there, new or changed.
    Address(AddressRow),
    /// An address is gone.
    AddressGone(AddressRow),
    /// A neighbour is there, new or changed.
    Neighbour(NeighbourRow),
    /// A neighbour is gone.
    NeighbourGone(NeighbourKey),
    /// Some route or rule changed.
    Routes,
    /// The kernel dropped events, because they were not read fast enough. Those that still wait are older than what a
    /// listing gives, and the ones that would correct them may be lost: read on from a new socket only.
    Lost,
}

/// Events from the moment it was opened.
pub(crate) struct Events {
    messages: Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>>,
    connection: JoinHandle<()>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Events {
    /// Subscribes, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub(crate) fn open(groups: &[MulticastGroup]) -> Result<Self, Error> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(groups).map_err(Error::Open)?;
        let messages = Box::pin(messages.map(|(message, _)| message));
        Ok(Self {
            messages,
            connection: tokio::spawn(connection),
        })
    }

    /// The next event; `None` when the socket has failed.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = event(self.messages.next().await?.payload) {
                return Some(event);
            }
        }
    }

    /// The next event if it is here already.
    pub(crate) fn at_hand(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = event(self.messages.next().now_or_never()??.payload) {
                return Some(event);
            }
        }
    }
}

/// What a message tells, if it is any of our business.
fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Event::Lost),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewLink(message) => link(&message).map(Event::Link),
        RouteNetlinkMessage::DelLink(message) => {
            link(&message).map(|row| Event::LinkGone(row.ifindex))
        }
        RouteNetlinkMessage::NewAddress(message) => address(&message).map(Event::Address),
        RouteNetlinkMessage::DelAddress(message) => address(&message).map(Event::AddressGone),
        RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message).map(Event::Neighbour),
        RouteNetlinkMessage::DelNeighbour(message) => {
            neighbour(&message).map(|row| Event::NeighbourGone(row.key))
        }
        RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_) => Some(Event::Routes),
        _ => None,
    }
}

/// Asks; one request at a time.
#[derive(Debug)]
pub(crate) struct Requests(rtnetlink::Handle);

impl Requests {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub(crate) fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// All links.
    pub(crate) async fn links(&self) -> Result<Vec<LinkRow>, Error> {
        let rows = self.0.link().get().execute().try_collect::<Vec<_>>();
        Ok(answer(rows, "list links".to_owned())
            .await?
            .iter()
            .filter_map(link)
            .collect())
    }

    /// All IPv4 addresses.
    pub(crate) async fn addresses(&self) -> Result<Vec<AddressRow>, Error> {
        let rows = self.0.address().get().execute().try_collect::<Vec<_>>();
        Ok(answer(rows, "list addresses".to_owned())
            .await?
            .iter()
            .filter_map(address)
            .collect())
    }

    /// All neighbours.
    pub(crate) async fn neighbours(&self) -> Result<Vec<NeighbourRow>, Error> {
        let rows = self.0.neighbours().get().execute().try_collect::<Vec<_>>();
        Ok(answer(rows, "list neighbours".to_owned())
            .await?
            .iter()
            .filter_map(neighbour)
            .collect())
    }

    /// The route that a packet of this host would take.
    pub(crate) async fn route(&self, destination: IpAddr) -> Result<RouteAnswer, Error> {
        let mut message = RouteMessage::default();
        (
            message.header.address_family,
            message.header.destination_prefix_length,
        ) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        let rows = self
            .0
            .route()
            .get(message)
            .execute()
            .try_collect::<Vec<_>>();
        match answer(rows, format!("say the route to {destination}")).await {
            Ok(rows) => rows.first().and_then(route).ok_or_else(|| Error::NoAnswer {
                request: format!("say the route to {destination}"),
            }),
            Err(Error::Refused {
                request,
                help,
                source,
            }) => match no_route(&source) {
                Some(words) => Ok(RouteAnswer::None(words)),
                None => Err(Error::Refused {
                    request,
                    help,
                    source,
                }),
            },
            Err(error) => Err(error),
        }
    }

    /// Has the kernel resolve a neighbour, or confirm the entry that it has.
    ///
    /// `NTF_USE` is what a packet to the neighbour would do. It must not be done to a permanent entry: the kernel
    /// would make it an ordinary one (`__neigh_update` of net/core/neighbour.c).
    pub(crate) async fn probe(&self, (ifindex, address): NeighbourKey) -> Result<(), Error> {
        let request = self.0.neighbours().add(ifindex, address);
        let request = request
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        answer(request.execute(), format!("probe the neighbour {address}")).await
    }

    /// Has the kernel forget a neighbour, but for a permanent entry, which is the operator's.
    pub(crate) async fn forget(&self, (ifindex, address): NeighbourKey) {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = ifindex;
        message
            .attributes
            .push(NeighbourAttribute::Destination(address.into()));
        let request = self.0.neighbours().del(message).execute();
        // There may be no entry, and then there is nothing to forget.
        drop(answer(request, format!("forget the neighbour {address}")).await);
    }

    /// Adds an address of the agent's.
    pub(crate) async fn add_address(&self, row: AddressRow) -> Result<(), Error> {
        let mut request = self
            .0
            .address()
            .add(row.ifindex, row.address.into(), row.prefix);
        request
            .message_mut()
            .attributes
            .push(AddressAttribute::Protocol(AddressProtocol::Other(
                row.protocol,
            )));
        answer(
            request.execute(),
            format!("add the address {}/{}", row.address, row.prefix),
        )
        .await
    }

    /// Removes an address.
    pub(crate) async fn remove_address(&self, row: AddressRow) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = row.ifindex;
        message.header.prefix_len = row.prefix;
        message
            .attributes
            .push(AddressAttribute::Local(row.address.into()));
        let request = self.0.address().del(message).execute();
        answer(
            request,
            format!("remove the address {}/{}", row.address, row.prefix),
        )
        .await
    }
}

/// Waits for an answer and says what failed.
async fn answer<T>(
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
    words: String,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            Err(Error::refused(words, message.to_io()))
        }
        Ok(Err(_)) | Err(_) => Err(Error::NoAnswer { request: words }),
    }
}

/// What a refusal says of the route, if it does.
fn no_route(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::ENETUNREACH => Some("the kernel has none"),
        libc::EHOSTUNREACH => Some("a route of type unreachable matches"),
        libc::EINVAL => Some("a route of type blackhole matches"),
        libc::EACCES => Some("a route of type prohibit matches"),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<LinkRow> {
    let header = &message.header;
    // A bridge tells of its ports by messages of its own family; one that leaves it is not gone.
    if header.interface_family == AddressFamily::Bridge {
        return None;
    }
    let mut row = LinkRow {
        ifindex: header.index,
        name: String::new(),
        mac: [0; 6],
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => row.name.clone_from(name),
            LinkAttribute::Address(bytes) => row.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => row.mtu = *mtu,
            _ => {}
        }
    }
    Some(row)
}

fn address(message: &AddressMessage) -> Option<AddressRow> {
    let (mut own, mut protocol) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => own = Some(*address),
            AddressAttribute::Protocol(number) => protocol = u8::from(*number),
            _ => {}
        }
    }
    let header = &message.header;
    own.map(|address| AddressRow {
        ifindex: header.index,
        address,
        prefix: header.prefix_len,
        protocol,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<NeighbourRow> {
    let header = &message.header;
    if header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut destination, mut own_mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                destination = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                destination = Some(IpAddr::V6(*address));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => own_mac = mac(bytes),
            _ => {}
        }
    }
    let usability = match header.state {
        NeighbourState::Permanent | NeighbourState::Noarp => Usability::Fixed,
        NeighbourState::Reachable => Usability::Fresh,
        NeighbourState::Delay | NeighbourState::Probe => Usability::Confirming,
        NeighbourState::Stale => Usability::Stale,
        _ => Usability::None,
    };
    Some(NeighbourRow {
        key: (header.ifindex, destination?),
        mac: own_mac,
        usability,
    })
}

fn route(message: &RouteMessage) -> Option<RouteAnswer> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Some(RouteAnswer::Local),
        RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => {
            return Some(RouteAnswer::Many);
        }
        _ => {
            return Some(RouteAnswer::None(
                "a route of a type that carries no packets matches",
            ));
        }
    }
    let (mut out, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => out = Some(*ifindex),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                source = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address))
            | RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address))
            | RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            _ => {}
        }
    }
    out.map(|ifindex| RouteAnswer::Unicast {
        ifindex,
        gateway,
        source,
    })
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}
