//! Why a balancer is not ready, from what a report shows. Pure.

use crate::{
    model::ReadyWhen,
    status::{InterfaceReport, ServiceReport},
};

/// So many services are named.
const NAMED: usize = 10;

/// What is missing, a line each; none where nothing is.
pub(super) fn missing(
    wanted: ReadyWhen,
    interfaces: &[InterfaceReport],
    services: &[ServiceReport],
) -> Vec<String> {
    let detached = interfaces
        .iter()
        .filter(|interface| interface.mode == "detached");
    let mut missing: Vec<_> = detached
        .map(|interface| {
            let reason = interface.reason.as_deref();
            format!(
                "{}: {}",
                interface.name,
                reason.unwrap_or("the program is not attached")
            )
        })
        .collect();
    let configured = || services.iter().filter(|service| !service.removed);
    let idle: Vec<_> = configured()
        .filter_map(|service| Some((service, why_idle(service)?)))
        .collect();
    match wanted {
        ReadyWhen::AnyService if !idle.is_empty() && idle.len() == configured().count() => {
            missing.push("no service has its VIP and a backend that takes new flows".to_owned());
        }
        ReadyWhen::AllServices => {
            missing.extend(
                idle.iter()
                    .take(NAMED)
                    .map(|(service, why)| format!("service {}: {why}", service.name)),
            );
            if idle.len() > NAMED {
                missing.push(format!("and {} services more", idle.len() - NAMED));
            }
        }
        ReadyWhen::Attached | ReadyWhen::AnyService => {}
    }
    missing
}

/// Why a service takes no new flows of its clients; `None` where it does.
fn why_idle(service: &ServiceReport) -> Option<&str> {
    let serves = service.backends.iter().any(|backend| backend.in_rotation);
    let problem = service.problem.as_deref();
    problem.or((!serves).then_some("no backend takes new flows"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::status::BackendReport;

    fn service(name: &str, in_rotation: &[bool]) -> ServiceReport {
        let backend = |in_rotation: &bool| BackendReport {
            in_rotation: *in_rotation,
            ..BackendReport::default()
        };
        ServiceReport {
            name: name.to_owned(),
            backends: in_rotation.iter().map(backend).collect(),
            ..ServiceReport::default()
        }
    }

    #[test]
    fn services_without_a_backend_count_as_far_as_the_configuration_says() {
        let whole = [service("a", &[false, true]), service("b", &[true])];
        let half = [service("a", &[false, false]), service("b", &[true])];
        let none = [service("a", &[false]), service("b", &[])];
        let lines = |wanted, services: &[ServiceReport]| missing(wanted, &[], services).len();
        let cases = [
            (ReadyWhen::Attached, [0, 0, 0]),
            (ReadyWhen::AnyService, [0, 0, 1]),
            (ReadyWhen::AllServices, [0, 1, 2]),
        ];
        for (wanted, counts) in cases {
            let seen = [&whole, &half, &none].map(|services| lines(wanted, services));
            assert_eq!(seen, counts, "{wanted:?}");
            assert_eq!(lines(wanted, &[]), 0, "nothing to serve is served");
        }
        let elsewhere = ServiceReport {
            problem: Some("its VIP is not taken: another host has it".to_owned()),
            ..service("a", &[true])
        };
        assert_eq!(
            missing(
                ReadyWhen::AllServices,
                &[],
                &[elsewhere.clone(), service("b", &[true])]
            ),
            ["service a: its VIP is not taken: another host has it"]
        );
        assert_eq!(lines(ReadyWhen::AnyService, &[elsewhere]), 1);
        let removed = ServiceReport {
            removed: true,
            ..service("a", &[true])
        };
        assert_eq!(
            lines(ReadyWhen::AnyService, &[removed, service("b", &[false])]),
            1,
            "a removed service serves nobody new"
        );
        let many = vec![service("a", &[]); 4_096];
        assert_eq!(lines(ReadyWhen::AllServices, &many), NAMED + 1);
    }

    #[test]
    fn an_interface_without_the_program_is_named_with_its_reason() {
        let interface = |name: &str, mode: &str, reason: Option<&str>| InterfaceReport {
            name: name.to_owned(),
            mode: mode.to_owned(),
            reason: reason.map(str::to_owned),
            ifindex: None,
            driver_counters: BTreeMap::new(),
            driver_losses: BTreeMap::new(),
            notices: Vec::new(),
        };
        let interfaces = [
            interface("eth0", "native", None),
            interface("eth1", "generic", Some("native is refused")),
            interface("eth2", "detached", None),
            interface("eth3", "detached", Some("gone")),
        ];
        assert_eq!(
            missing(ReadyWhen::AnyService, &interfaces, &[]),
            ["eth2: the program is not attached", "eth3: gone"]
        );
    }
}
