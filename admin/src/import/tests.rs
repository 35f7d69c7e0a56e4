use super::*;

/// A fragment as people publish it, as it is.
const FRAGMENT: &str = include_str!("fragment.yaml");

const ROLLOUT: &str = r#"apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: shop}
spec:
  replicas: 5
  progressDeadlineSeconds: 600
  strategy:
    canary:
      canaryService: shop-canary
      maxSurge: 25%
      trafficRouting: {nginx: {stableIngress: shop}}
      steps:
        - setWeight: 5
        - pause: {duration: 10m}
        - setWeight: 20
        - setCanaryScale: {replicas: 2}
        - setWeight: 50
        - pause: {duration: 90}
        - pause: {}
        - setWeight: 100
      analysis:
        startingStep: 2
        templates: [{templateName: success-rate}, {templateName: elsewhere}]
        args:
          - {name: service-name, value: shop.default}
          - {name: unused, value: x}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: success-rate}
spec:
  args: [{name: service-name}, {name: prometheus, value: "http://127.0.0.1:9090"}]
  metrics:
    - name: success-rate
      interval: 1m
      count: 10
      successCondition: result[0] >= 0.95
      failureLimit: 3
      provider:
        prometheus:
          address: "{{args.prometheus}}"
          query: sum(rate(requests{service="{{args.service-name}}",code!~"5.*"}[5m]))
    - name: strange
      successCondition: len(result) > 0
      provider: {prometheus: {address: "http://127.0.0.1:9090", query: up}}
    - name: job
      provider: {job: {spec: {}}}
"#;

const CANARY: &str = r#"apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo}
spec:
  targetRef: {kind: Deployment, name: podinfo}
  progressDeadlineSeconds: 60
  service: {port: 9898}
  analysis:
    interval: 1m
    threshold: 5
    maxWeight: 50
    stepWeight: 20
    metrics:
      - name: request-success-rate
        thresholdRange: {min: 99.5}
        interval: 1m
      - name: request-duration
        thresholdRange: {max: 500}
      - name: mine
        templateRef: {name: mine}
    webhooks: [{name: load, url: "http://load/"}]
"#;

fn places(left: &[Left]) -> Vec<(usize, &str)> {
    left.iter().map(|left| (left.line, &*left.path)).collect()
}

#[test]
fn automated_rollback_of_a_fragment_becomes_a_section_as_it_is() {
    let import = import(Tool::Argo, FRAGMENT).expect("it is read");
    assert_eq!(
        json!(import.section),
        json!({
            "drain": {"safe_to_stop_after": "30s"},
            "rollback": {"max_extra_errors": "1%"},
        })
    );
    assert!(import.left.is_empty(), "nothing of it is lost");
    assert_eq!(
        import.yaml,
        "drain:\n  safe_to_stop_after: \"30s\"\nrollback:\n  max_extra_errors: \"1%\"\n"
    );
}

#[test]
fn rollout_becomes_steps_and_its_template_rules() {
    let import = import(Tool::Argo, ROLLOUT).expect("it is read");
    assert_eq!(import.name.as_deref(), Some("shop"));
    assert_eq!(
        json!(import.section),
        json!({
            "rollout": {
                "deadline": "10m",
                "steps": [
                    {"weight": "5%", "for": "10m"},
                    {"weight": "20%", "requests": 20},
                    {"weight": "50%", "for": "90s", "approve": true},
                ],
            },
            "rollback": {"rules": [{
                "name": "success-rate",
                "prometheus": "http://127.0.0.1:9090",
                "query": "sum(rate(requests{service=\"shop.default\",code!~\"5.*\"}[5m]))",
                "threshold": "< 0.95",
                "for": "4m",
                "every": "1m",
            }]},
        })
    );
    assert_eq!(
        places(&import.left),
        [
            (5, "spec.replicas"),
            (9, "spec.strategy.canary.canaryService"),
            (10, "spec.strategy.canary.maxSurge"),
            (11, "spec.strategy.canary.trafficRouting"),
            (16, "spec.strategy.canary.steps[3]"),
            (22, "spec.strategy.canary.analysis.startingStep"),
            (23, "spec.strategy.canary.analysis.templates[1]"),
            (26, "spec.strategy.canary.analysis.args[1]"),
            (36, "spec.metrics[0].count"),
            (43, "spec.metrics[1]"),
            (46, "spec.metrics[2]"),
        ]
    );
    assert!(import.left[9].reason.contains("write the rule by hand"));
    assert!(import.left[6].reason.contains("not in this file"));
}

#[test]
fn canary_of_flagger_becomes_steps_and_bounds() {
    let import = import(Tool::Flagger, CANARY).expect("it is read");
    assert_eq!(
        json!(import.section),
        json!({
            "rollout": {
                "deadline": "1m",
                "steps": [{"weight": "20%", "for": "1m"}, {"weight": "40%", "for": "1m"}],
            },
            "rollback": {"max_extra_errors": "0.5%", "slow": "500ms", "max_extra_slow": "1%"},
        })
    );
    assert_eq!(
        places(&import.left),
        [
            (5, "spec.targetRef"),
            (7, "spec.service"),
            (10, "spec.analysis.threshold"),
            (16, "spec.analysis.metrics[0].interval"),
            (19, "spec.analysis.metrics[2]"),
            (21, "spec.analysis.webhooks"),
        ]
    );
}

#[test]
fn nothing_of_a_file_is_dropped() {
    for (tool, text) in [
        (Tool::Argo, ROLLOUT),
        (Tool::Flagger, CANARY),
        (Tool::Argo, FRAGMENT),
    ] {
        let import = import(tool, text).expect("it is read");
        let told: Vec<&str> = import
            .taken
            .iter()
            .map(|taken| &*taken.path)
            .chain(import.left.iter().map(|left| &*left.path))
            .collect();
        for document in documents(text).expect("it is YAML") {
            check_told(&document, &told);
        }
    }
}

/// Every value is told of, or is in one that is, or names the thing itself.
fn check_told(value: &Foreign, told: &[&str]) {
    let named = ["apiVersion", "kind", "metadata"].contains(&&*value.path);
    if named || told.contains(&&*value.path) {
        return;
    }
    match &value.value {
        ForeignValue::Map(entries) => entries
            .iter()
            .for_each(|(_, below)| check_told(below, told)),
        ForeignValue::List(items) => items.iter().for_each(|below| check_told(below, told)),
        ForeignValue::Text(_) | ForeignValue::Null => {
            let of_metric = value.path.ends_with("].name");
            assert!(of_metric, "line {}: {} is dropped", value.line, value.path);
        }
    }
}

#[test]
fn files_that_are_something_else_are_refused() {
    for (tool, text, said) in [
        (Tool::Argo, "a: [", "line "),
        (
            Tool::Argo,
            "",
            "there is no Rollout or AnalysisTemplate in it",
        ),
        (
            Tool::Argo,
            "kind: Deployment\nspec: {}\n",
            "there is no Rollout",
        ),
        (
            Tool::Flagger,
            "kind: Rollout\nspec: {}\n",
            "there is no Canary in it",
        ),
        (
            Tool::Argo,
            "kind: Rollout\nspec:\n  strategy: {canary: {maxSurge: 1}}\n",
            "nothing in it has a counterpart here; first: line 2: spec",
        ),
        (
            Tool::Argo,
            "spec: {strategy: {canary: {steps: [{setWeight: 50}, {setWeight: 10}]}}}",
            "rollout.steps",
        ),
    ] {
        let error = import(tool, text).expect_err(text).to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}
