//! Feature flags: every variant that is served exists, shares add up, and what fails closed can.

use std::net::SocketAddr;

use indexmap::IndexMap;

use super::{admin_tls, path, require, texts};
use crate::decode::{Context, Place, Spanned, Table};
use crate::defaults::{
    self, FLAG_AGE_BOUNDS, FLAG_RULES_MAX, FLAG_VALUE_BYTES_MAX, FLAG_VARIANTS_MAX, FLAGS_MAX,
};
use crate::diagnostic::Code;
use crate::model::{Condition, Flag, FlagHeader, FlagRule, Name, Ofrep};
use crate::raw;
use crate::suggest;
use crate::units::{Percent, TimeSpan};

/// Reads where flags are served. `admin`: where the admin API listens.
pub(super) fn ofrep(
    written: &Spanned<raw::Ofrep>,
    admin: SocketAddr,
    cx: &Context<'_>,
) -> Option<Ofrep> {
    let raw = &written.value;
    let default = SocketAddr::from(([127, 0, 0, 1], defaults::OFREP_PORT));
    let address = raw
        .address
        .as_ref()
        .map_or(default, |address| address.value);
    let at = || match &raw.address {
        Some(address) => Place::from(address),
        None => Place::from(written),
    };
    if !address.ip().is_loopback() && (raw.tls.is_none() || raw.tokens_file.is_none()) {
        let reason = "flags would be shown to everybody who can reach this address";
        let repair = "use 127.0.0.1, or add tls with certificate and key, and tokens_file";
        cx.error(Code::AdminExposed, at(), reason, repair);
    }
    if super::listeners::collide(admin, address) {
        let reason = format!("the admin API has this address: {admin}");
        cx.error(Code::ListenerConflict, at(), reason, "use another port");
    }
    let tls = match &raw.tls {
        Some(tls) => Some(admin_tls(tls, cx)?),
        None => None,
    };
    Some(Ofrep {
        address,
        tls,
        tokens_file: path(raw.tokens_file.as_ref()),
    })
}

/// Reads the flags.
pub(super) fn flags(
    written: Option<&Spanned<Table<raw::Flag>>>,
    cx: &Context<'_>,
) -> IndexMap<Name, Flag> {
    let Some(written) = written else {
        return IndexMap::new();
    };
    let count = written.value.0.len();
    if count > FLAGS_MAX {
        let reason = format!("{count} flags are more than {FLAGS_MAX}");
        cx.error(
            Code::TooLarge,
            written,
            reason,
            "remove those that are over",
        );
        return IndexMap::new();
    }
    let mut flags = IndexMap::new();
    for (key, raw) in &written.value.0 {
        let at = Place {
            span: key.span,
            path: raw.path.clone(),
        };
        texts::check_name(&key.text, at, "flag", cx);
        if let Some(flag) = flag(raw, cx) {
            flags.insert(key.text.clone(), flag);
        }
    }
    flags
}

/// Reads one flag.
pub(crate) fn flag(written: &Spanned<raw::Flag>, cx: &Context<'_>) -> Option<Flag> {
    let raw = &written.value;
    let variants = match &raw.variants {
        Some(table) => variants(table, cx)?,
        None => Flag::on_and_off(),
    };
    let case = Case {
        is_boolean: variants == Flag::on_and_off(),
        variants: &variants,
        cx,
    };
    let kill_switch = raw.kill_switch.as_ref().is_some_and(|kill| kill.value);
    if kill_switch {
        check_kill_switch(raw, &case);
    }
    let default = case.default(written, kill_switch)?;
    let off = match &raw.off {
        Some(off) => case.variant(off)?,
        None if case.is_boolean => Flag::OFF.to_owned(),
        None => default.clone(),
    };
    if let Some(share) = raw.share.as_ref().filter(|_| default == Flag::ON) {
        let reason = "everybody gets on already: that is its default";
        cx.error(Code::Contradiction, share, reason, "write default: false");
    }
    let rules = rules(raw, &case);
    check_age(raw, kill_switch, cx);
    let default_age = TimeSpan(defaults::FLAG_AGE_MAX);
    let max_age = raw.max_age.as_ref().map_or(default_age, |age| age.value);
    Some(Flag {
        enabled: raw.enabled.as_ref().is_none_or(|enabled| enabled.value),
        default,
        off,
        shares: case.shares(raw.share.as_ref(), raw.shares.as_ref()),
        rules,
        kill_switch,
        max_age: kill_switch.then_some(max_age),
        variants,
    })
}

fn variants(
    table: &Spanned<Table<raw::FlagValue>>,
    cx: &Context<'_>,
) -> Option<IndexMap<Name, serde_json::Value>> {
    let count = table.value.0.len();
    if count == 0 || count > FLAG_VARIANTS_MAX {
        let reason = format!("{count} variants are none, or too many");
        let repair = format!("name 1 to {FLAG_VARIANTS_MAX} variants");
        cx.error(Code::OutOfRange, table, reason, repair);
        return None;
    }
    let mut variants = IndexMap::new();
    for (key, value) in &table.value.0 {
        let at = Place {
            span: key.span,
            path: value.path.clone(),
        };
        texts::check_name(&key.text, at, "variant", cx);
        let bytes = value.value.0.to_string().len();
        if bytes > FLAG_VALUE_BYTES_MAX {
            let reason = format!("a value of {bytes} bytes is larger than {FLAG_VALUE_BYTES_MAX}");
            let repair = "put it elsewhere, and its name here";
            cx.error(Code::TooLarge, value, reason, repair);
        }
        variants.insert(key.text.clone(), value.value.0.clone());
    }
    Some(variants)
}

/// What fails closed is on or off for everybody.
fn check_kill_switch(raw: &raw::Flag, case: &Case<'_>) {
    let reason = "a kill switch is on or off for everybody";
    let refuse = |at: Place, key: &str| {
        let repair = format!("remove {key}, or kill_switch");
        case.cx.error(Code::Contradiction, at, reason, repair);
    };
    if let Some(variants) = raw.variants.as_ref().filter(|_| !case.is_boolean) {
        refuse(variants.into(), "variants");
    }
    if let Some(share) = &raw.share {
        refuse(share.into(), "share");
    }
    if let Some(shares) = &raw.shares {
        refuse(shares.into(), "shares");
    }
    if let Some(rules) = &raw.rules {
        refuse(rules.into(), "rules");
    }
    if let Some(off) = raw.off.as_ref().filter(|off| off.value != Flag::OFF) {
        refuse(off.into(), "off");
    }
}

fn check_age(raw: &raw::Flag, kill_switch: bool, cx: &Context<'_>) {
    let Some(age) = &raw.max_age else {
        return;
    };
    let (least, most) = FLAG_AGE_BOUNDS;
    if !kill_switch {
        let reason = "only a kill switch asks how old its state is";
        let repair = "add kill_switch: true, or remove max_age";
        cx.error(Code::Contradiction, age, reason, repair);
    } else if age.value.0 < least || age.value.0 > most {
        let reason = "the state is looked at once a second, and what is too old says nothing";
        let repair = format!("use {} to {}", TimeSpan(least), TimeSpan(most));
        cx.error(Code::OutOfRange, age, reason, repair);
    }
}

fn rules(raw: &raw::Flag, case: &Case<'_>) -> Vec<FlagRule> {
    let Some(written) = &raw.rules else {
        return Vec::new();
    };
    if written.value.len() > FLAG_RULES_MAX {
        let reason = format!("{} rules are too many", written.value.len());
        let repair = format!("use at most {FLAG_RULES_MAX}");
        case.cx.error(Code::OutOfRange, written, reason, repair);
        return Vec::new();
    }
    let rules = written.value.iter();
    rules.filter_map(|rule| case.rule(rule)).collect()
}

/// A flag whose variants are known.
struct Case<'a> {
    variants: &'a IndexMap<Name, serde_json::Value>,
    is_boolean: bool,
    cx: &'a Context<'a>,
}

impl Case<'_> {
    fn default(&self, written: &Spanned<raw::Flag>, kill_switch: bool) -> Option<Name> {
        if let Some(default) = &written.value.default {
            return self.variant(default);
        }
        match (self.is_boolean, kill_switch) {
            (true, true) => Some(Flag::ON.into()),
            (true, false) => Some(Flag::OFF.into()),
            (false, _) => {
                require::<_, String>(written, None, "default", self.cx);
                None
            }
        }
    }

    /// The name of a variant; true and false say on and off.
    fn variant(&self, written: &Spanned<String>) -> Option<Name> {
        let name = match written.value.as_str() {
            "true" if self.is_boolean => Flag::ON,
            "false" if self.is_boolean => Flag::OFF,
            name => name,
        };
        if !self.variants.contains_key(name) {
            self.refuse(name, written.into());
            return None;
        }
        Some(name.to_owned())
    }

    fn refuse(&self, name: &str, at: Place) {
        let known: Vec<&str> = self.variants.keys().map(String::as_str).collect();
        let reason = format!("there is no variant {name:?}");
        let repair = suggest::repair(name, &known, "variant");
        self.cx.error(Code::DanglingName, at, reason, repair);
    }

    fn shares(
        &self,
        share: Option<&Spanned<Percent>>,
        shares: Option<&Spanned<Table<Percent>>>,
    ) -> IndexMap<Name, Percent> {
        let mut table = IndexMap::new();
        if let (Some(share), Some(shares)) = (share, shares) {
            let reason = "share and shares say the same in two ways";
            let other = (shares.span, "the other one".to_owned());
            let repair = "remove one of the two";
            self.cx
                .conflict(Code::Contradiction, share, reason, repair, other);
        }
        if let Some(share) = share {
            if self.is_boolean {
                table.insert(Flag::ON.to_owned(), share.value);
            } else {
                let reason = "which variant gets this share is not said";
                let repair = "write shares: {variant: 5%}";
                self.cx.error(Code::Contradiction, share, reason, repair);
            }
        }
        let Some(shares) = shares else {
            return table;
        };
        for (key, share) in &shares.value.0 {
            if !self.variants.contains_key(&key.text) {
                let path = share.path.clone();
                #[rustfmt::skip]
                self.refuse(&key.text, Place { span: key.span, path });
            }
            table.insert(key.text.clone(), share.value);
        }
        let sum: u64 = table.values().map(|s| u64::from(s.millionths())).sum();
        if sum > u64::from(Percent::WHOLE) {
            let reason = "these shares are more than 100% together";
            let repair = "leave 100% or less";
            self.cx.error(Code::OutOfRange, shares, reason, repair);
        }
        table
    }

    fn rule(&self, written: &Spanned<raw::FlagRule>) -> Option<FlagRule> {
        let raw = &written.value;
        let when = require(written, raw.when.as_ref(), "when", self.cx);
        let serve = raw.serve.as_ref().and_then(|serve| self.variant(serve));
        let shares = self.shares(raw.share.as_ref(), raw.shares.as_ref());
        let has_shares = raw.share.is_some() || raw.shares.is_some();
        if raw.serve.is_some() == has_shares {
            let reason = "a rule gives one variant, or shares of several";
            let repair = "write serve: with a variant, or share: with a percent, and not both";
            self.cx.error(Code::Contradiction, written, reason, repair);
        }
        let mut conditions = IndexMap::new();
        for (key, condition) in &when?.value.0 {
            conditions.insert(key.text.clone(), self.condition(condition));
        }
        if conditions.is_empty() || conditions.len() > FLAG_RULES_MAX {
            let reason = "a rule is about one attribute or more";
            let repair = "write when: {plan: gold}, and what everybody gets as default";
            self.cx.error(Code::OutOfRange, when?, reason, repair);
        }
        Some(FlagRule {
            when: conditions,
            serve,
            shares,
        })
    }

    fn condition(&self, written: &Spanned<raw::Condition>) -> Condition {
        let json = |values: &[raw::FlagValue]| values.iter().map(|v| v.0.clone()).collect();
        let text = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.value.clone());
        let number = |number: &Option<Spanned<raw::Number>>| number.as_ref().map(|n| n.value.0);
        let list = |list: &Option<Spanned<Vec<raw::FlagValue>>>| {
            list.as_ref().map_or(Vec::new(), |list| json(&list.value))
        };
        let condition = match &written.value {
            raw::Condition::Is(values) => Condition {
                is: json(values),
                ..Condition::default()
            },
            raw::Condition::Compare(raw) => Condition {
                is: list(&raw.is),
                not: list(&raw.not),
                starts_with: text(&raw.starts_with),
                ends_with: text(&raw.ends_with),
                contains: text(&raw.contains),
                above: number(&raw.above),
                below: number(&raw.below),
            },
        };
        let count = condition.is.len() + condition.not.len();
        if condition == Condition::default() || count > FLAG_VALUES_MAX {
            let reason = "nothing is compared here, or too much";
            let repair = format!("write a value, or at most {FLAG_VALUES_MAX} of them");
            self.cx.error(Code::OutOfRange, written, reason, repair);
        }
        condition
    }
}

/// Values that an attribute is compared with, one after the other.
const FLAG_VALUES_MAX: usize = 100;

/// Reads which flags the backends of a service are told.
pub(super) fn header(
    written: &Spanned<raw::FlagHeader>,
    flags: &IndexMap<Name, Flag>,
    cx: &Context<'_>,
) -> Option<FlagHeader> {
    let raw = &written.value;
    let header = require(written, raw.header.as_ref(), "header", cx);
    let names = require(written, raw.names.as_ref(), "names", cx);
    if let Some(names) = names {
        super::check_unique(&names.value, "flag", cx);
        check_names(&names.value, flags, cx);
        if names.value.is_empty() {
            let reason = "no flag is told in this header";
            let repair = "name flags, or remove the section";
            cx.error(Code::MissingKey, names, reason, repair);
        }
    }
    let header = header?;
    let name = super::routes::changed_header(&header.value, header.into(), cx)?;
    Some(FlagHeader {
        header: name,
        names: super::values(Some(names?)),
    })
}

/// Checks that flags exist.
pub(super) fn check_names(
    names: &[Spanned<String>],
    flags: &IndexMap<Name, Flag>,
    cx: &Context<'_>,
) {
    let known: Vec<&str> = flags.keys().map(String::as_str).collect();
    for name in names {
        if !flags.contains_key(&name.value) {
            let reason = format!("there is no flag {:?}", name.value);
            let repair = suggest::repair(&name.value, &known, "flag");
            cx.error(Code::DanglingName, name, reason, repair);
        }
    }
}
