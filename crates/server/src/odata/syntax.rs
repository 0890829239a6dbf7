//! `$filter` as a tree (OData 4.01, part 2, section 5.1.1). Names mean nothing here yet.

use super::token::{Token, tokens};
use crate::edge::ApiError;

/// Deepest nesting of parentheses, calls and `not`.
const DEEPEST: usize = 60;
/// Conditions that one filter may hold.
const MOST: usize = 2000;

/// A part of the filter and where it begins.
#[derive(Debug, PartialEq)]
pub struct Node {
    pub place: usize,
    pub kind: Kind,
}

#[derive(Debug, PartialEq)]
pub enum Kind {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Compare(Operator, Box<Node>, Box<Node>),
    In(Box<Node>, Vec<Node>),
    Call(String, Vec<Node>),
    /// `path/any(variable: body)`; `path/any()` asks for any element at all.
    Lambda {
        path: String,
        all: bool,
        body: Option<(String, Box<Node>)>,
    },
    Text(String),
    /// A property, or a literal without quotes.
    Word(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    fn named(word: &str) -> Option<Operator> {
        Some(match word.to_ascii_lowercase().as_str() {
            "eq" => Operator::Equal,
            "ne" => Operator::NotEqual,
            "lt" => Operator::Less,
            "le" => Operator::LessOrEqual,
            "gt" => Operator::Greater,
            "ge" => Operator::GreaterOrEqual,
            _ => return None,
        })
    }

    /// The same comparison with its sides exchanged.
    pub fn turned(self) -> Operator {
        match self {
            Operator::Less => Operator::Greater,
            Operator::LessOrEqual => Operator::GreaterOrEqual,
            Operator::Greater => Operator::Less,
            Operator::GreaterOrEqual => Operator::LessOrEqual,
            same => same,
        }
    }
}

/// Reads a filter. Errors name what was not expected and its position.
pub fn parse(text: &str) -> Result<Node, ApiError> {
    let mut reader = Reader { tokens: tokens(text)?, at: 0, depth: 0, conditions: 0 };
    let node = reader.or()?;
    match reader.peek() {
        Token::End => Ok(node),
        other => Err(unexpected(other, reader.place())),
    }
}

fn unexpected(found: &Token, place: usize) -> ApiError {
    ApiError::odata(format!(
        "Syntax error at position {place} in the filter: '{}' was not expected.",
        found.shown()
    ))
}

struct Reader {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    conditions: usize,
}

impl Reader {
    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    fn place(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Result<(), ApiError> {
        let place = self.place();
        let found = self.next();
        if found == *token {
            return Ok(());
        }
        let error = unexpected(&found, place);
        Err(ApiError::odata(format!("{} '{}' is missing.", error.message, token.shown())))
    }

    /// Counts nesting around what `read` reads.
    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Reader) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let place = self.place();
            return Err(ApiError::odata(format!(
                "The filter is nested deeper than {DEEPEST} levels at position {place}."
            )));
        }
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    fn or(&mut self) -> Result<Node, ApiError> {
        self.chain("or", Kind::Or, Reader::and)
    }

    fn and(&mut self) -> Result<Node, ApiError> {
        self.chain("and", Kind::And, Reader::condition)
    }

    fn chain(
        &mut self,
        word: &str,
        kind: fn(Vec<Node>) -> Kind,
        part: fn(&mut Reader) -> Result<Node, ApiError>,
    ) -> Result<Node, ApiError> {
        let place = self.place();
        let mut parts = vec![part(self)?];
        while self.eat_word(word) {
            parts.push(part(self)?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Ok(Node { place, kind: kind(parts) }),
        }
    }

    /// `not …`, or an operand with what it is compared to.
    fn condition(&mut self) -> Result<Node, ApiError> {
        let place = self.place();
        self.conditions += 1;
        if self.conditions > MOST {
            return Err(ApiError::odata(format!("The filter has more than {MOST} conditions.")));
        }
        if self.eat_word("not") {
            let inner = self.deeper(Reader::condition)?;
            return Ok(Node { place, kind: Kind::Not(Box::new(inner)) });
        }
        let left = self.operand()?;
        let operator_place = self.place();
        let Token::Word(word) = self.peek().clone() else { return Ok(left) };
        if let Some(operator) = Operator::named(&word) {
            self.at += 1;
            let right = self.operand()?;
            let kind = Kind::Compare(operator, Box::new(left), Box::new(right));
            return Ok(Node { place, kind });
        }
        match word.to_ascii_lowercase().as_str() {
            "and" | "or" => Ok(left),
            "in" => {
                self.at += 1;
                let items = self.list()?;
                Ok(Node { place, kind: Kind::In(Box::new(left), items) })
            }
            _ => Err(ApiError::odata(format!(
                "'{word}' at position {operator_place} is no operator of a filter."
            ))),
        }
    }

    /// `('a', 'b')`
    fn list(&mut self) -> Result<Vec<Node>, ApiError> {
        self.expect(&Token::Open)?;
        let mut items = Vec::new();
        loop {
            items.push(self.operand()?);
            if !self.eat(&Token::Comma) {
                self.expect(&Token::Close)?;
                return Ok(items);
            }
        }
    }

    fn operand(&mut self) -> Result<Node, ApiError> {
        let place = self.place();
        match self.next() {
            Token::Open => {
                let inner = self.deeper(Reader::or)?;
                self.expect(&Token::Close)?;
                Ok(inner)
            }
            Token::Text(text) => Ok(Node { place, kind: Kind::Text(text) }),
            Token::Word(word) if *self.peek() == Token::Open => {
                self.at += 1;
                self.deeper(|reader| reader.call(word, place))
            }
            Token::Word(word) => Ok(Node { place, kind: Kind::Word(word) }),
            other => Err(unexpected(&other, place)),
        }
    }

    /// What follows the name and the parenthesis of a function or lambda.
    fn call(&mut self, word: String, place: usize) -> Result<Node, ApiError> {
        let lambda = word.rsplit_once('/').and_then(|(path, name)| {
            let all = name.eq_ignore_ascii_case("all");
            (all || name.eq_ignore_ascii_case("any")).then(|| (path.to_owned(), all))
        });
        if let Some((path, all)) = lambda {
            if self.eat(&Token::Close) {
                return Ok(Node { place, kind: Kind::Lambda { path, all, body: None } });
            }
            let variable_place = self.place();
            let variable = match self.next() {
                Token::Word(variable) => variable,
                other => return Err(unexpected(&other, variable_place)),
            };
            self.expect(&Token::Colon)?;
            let body = self.or()?;
            self.expect(&Token::Close)?;
            let body = Some((variable, Box::new(body)));
            return Ok(Node { place, kind: Kind::Lambda { path, all, body } });
        }
        let mut arguments = Vec::new();
        if !self.eat(&Token::Close) {
            loop {
                arguments.push(self.operand()?);
                if !self.eat(&Token::Comma) {
                    self.expect(&Token::Close)?;
                    break;
                }
            }
        }
        Ok(Node { place, kind: Kind::Call(word, arguments) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn and_binds_closer_than_or_and_not_closest() {
        let Kind::Or(parts) = parse("a eq 1 or not b eq 2 and c eq 3").expect("a tree").kind else {
            panic!("no or")
        };
        let Kind::And(second) = &parts[1].kind else { panic!("no and") };
        assert!(matches!(second[0].kind, Kind::Not(_)), "{second:?}");
    }

    #[test]
    fn hostile_filters_end_quickly() {
        let deep = format!("{}a eq 1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(parse(&deep).expect_err("deep").message.contains("nested"));
        let deep = format!("{}a{}", "tolower(".repeat(3000), ")".repeat(3000));
        assert!(parse(&deep).expect_err("deep").message.contains("nested"));
        assert!(parse(&"not ".repeat(5000)).expect_err("deep").message.contains("nested"));
        let many = vec!["a eq 1"; 2500].join(" or ");
        assert!(parse(&many).expect_err("many").message.contains("conditions"));
        let long = format!("a eq '{}'", "x".repeat(100_000));
        assert!(parse(&long).expect_err("long").message.contains("longer"));
    }
}
