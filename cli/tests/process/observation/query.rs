//! What a query of Prometheus needs to be there.

use rusty_promql_parser::{Expr, VectorSelector};

/// The selectors of a query, and the labels that it groups and joins by.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) selectors: Vec<Selector>,
    pub(super) labels: Vec<String>,
}

/// The name of a metric, and labels of it with what they are compared with.
#[derive(Debug)]
pub(super) struct Selector {
    pub(super) metric: String,
    pub(super) labels: Vec<(String, Option<String>)>,
}

impl Query {
    /// Reads a query as a whole.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match rusty_promql_parser::expr(text) {
            Ok((rest, expression)) if rest.trim().is_empty() => {
                let mut query = Self::default();
                query.take(&expression);
                Ok(query)
            }
            Ok((rest, _)) => Err(format!("{text}: cannot read from {rest:?} on")),
            Err(error) => Err(format!("{text}: {error}")),
        }
    }

    fn select(&mut self, selector: &VectorSelector) {
        let labels = selector.matchers.iter().map(|matcher| {
            let is = matcher.op.as_str() == "=";
            (matcher.name.clone(), is.then(|| matcher.value.clone()))
        });
        let metric = selector.name.clone().unwrap_or_default();
        self.selectors.push(Selector { metric, labels: labels.collect() });
    }

    fn take(&mut self, expression: &Expr) {
        match expression {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::VectorSelector(selector) => self.select(selector),
            Expr::MatrixSelector(matrix) => self.select(&matrix.selector),
            Expr::Call(call) => call.args.iter().for_each(|argument| self.take(argument)),
            Expr::Aggregation(aggregation) => {
                let grouping = aggregation.grouping.iter();
                self.labels.extend(grouping.flat_map(|grouping| grouping.labels.iter().cloned()));
                aggregation.param.iter().for_each(|parameter| self.take(parameter));
                self.take(&aggregation.expr);
            }
            Expr::Binary(binary) => {
                let matching = binary.modifier.iter().filter_map(|modifier| modifier.matching.as_ref());
                self.labels.extend(matching.flat_map(|matching| matching.labels.iter().cloned()));
                self.take(&binary.lhs);
                self.take(&binary.rhs);
            }
            Expr::Unary(unary) => self.take(&unary.expr),
            Expr::Paren(inner) => self.take(inner),
            Expr::Subquery(subquery) => self.take(&subquery.expr),
        }
    }
}

#[test]
fn a_query_needs_its_metrics_and_all_labels_that_it_names() {
    let text = "histogram_quantile(0.99, sum by (le, who) (rate(took_bucket{code=\"5xx\", x!=\"y\"}[5m]))) > 10 \
                and on (agent) (there == 1)";
    let query = Query::parse(text).unwrap();
    let metrics: Vec<_> = query.selectors.iter().map(|selector| selector.metric.as_str()).collect();
    assert_eq!(metrics, ["took_bucket", "there"]);
    assert_eq!(
        query.selectors[0].labels,
        [("code".to_owned(), Some("5xx".to_owned())), ("x".to_owned(), None)]
    );
    let mut labels = query.labels;
    labels.sort();
    assert_eq!(labels, ["agent", "le", "who"]);
    assert!(Query::parse("sum(rate(x[5m])").is_err());
}
