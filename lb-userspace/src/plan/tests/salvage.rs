//! What may follow a change that failed.

use lb_common::abi::ConfigRow;

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn after_a_failure_nothing_is_taken_away_and_nothing_built_on_what_is_missing() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    let tables = &balancer.actual.tables;
    let (id, state) = balancer.row(backend(1)).unwrap();
    let (service, row) = tables.service_in_force(www()).unwrap();
    let (service, row) = (service, *row);
    let slot = InterfaceSlot::new(1).unwrap();
    let way = balancer.way(backend(1));
    let (index, bits) = (0..)
        .zip(&tables.filter)
        .find(|(_, bits)| **bits != 0)
        .unwrap();
    let interface = tables.interfaces[&slot];
    let new_tenant = Change::Backend {
        id,
        address: backend(1),
        way,
        state,
    };
    let new_service = Change::Service { id: service, row };
    let no_device = |ifindex| Change::Device { slot, ifindex };
    let failed = Change::Filter { index, bits: *bits };
    // What failed, what comes after it, and whether that may be applied.
    let cases = [
        (&failed, Change::Config(tables.config), true),
        (&failed, Change::Config(ConfigRow::default()), false),
        (&failed, Change::BackendWay { id, way }, true),
        (
            &failed,
            Change::BackendWay {
                id,
                way: Way {
                    interface: 2,
                    ..way
                },
            },
            false,
        ),
        (
            &failed,
            Change::Filter {
                index,
                bits: u64::MAX,
            },
            true,
        ),
        (&failed, Change::Filter { index, bits: 0 }, false),
        (
            &failed,
            Change::Interface {
                slot,
                row: interface,
            },
            true,
        ),
        (
            &failed,
            Change::Interface {
                slot,
                row: InterfaceRow {
                    ifindex: 0,
                    ..interface
                },
            },
            false,
        ),
        (&failed, no_device(Some(2)), true),
        (&failed, no_device(None), false),
        (
            &failed,
            Change::BackendState {
                id,
                state: BackendState {
                    flags: BackendState::IN_USE,
                    ..state
                },
            },
            true,
        ),
        (
            &failed,
            Change::BackendState {
                id,
                state: BackendState { flags: 0, ..state },
            },
            false,
        ),
        (&failed, new_tenant.clone(), true),
        (&Change::ClearBackendCounters(id), new_tenant, false),
        (&failed, new_service.clone(), true),
        (&Change::ClearServiceCounters(service), new_service, false),
    ];
    for (failed, next, may) in cases {
        let mut salvage = Salvage::default();
        assert!(salvage.may_follow(&next, tables), "nothing has failed");
        salvage.leave_out(failed, tables);
        assert_eq!(
            salvage.may_follow(&next, tables),
            may,
            "{failed:?}, then {next:?}"
        );
    }
}
