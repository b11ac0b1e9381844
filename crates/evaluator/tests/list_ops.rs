//! ListOps data as a model reads it.

use std::collections::BTreeSet;

use burn::tensor::Device;
use maskwright_evaluator::{Expression, ListOps, Task, TaskError};
use maskwright_transformer::{EncoderConfig, EncoderInput, Inputs, Model, Reads};

const SYMBOLS: [&str; 15] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "[MIN", "[MAX", "[MED", "[SM", "]"];

#[test]
fn generated_expressions_differ_and_have_the_lengths_that_were_asked_for() {
    let task = ListOps { shortest: 20, longest: 63, train: 300, validation: 100, test: 100, seed: 5 };
    let data = task.generate().unwrap();
    assert_eq!(task.generate().unwrap().digest(), data.digest());
    assert_eq!(data.train.needs(), (Reads::Text { length: 64, vocabulary: 16, padding: 0 }, 10));

    let mut different = BTreeSet::new();
    for (examples, expected) in [(&data.train, 300), (&data.validation, 100), (&data.test, 100)] {
        assert_eq!(examples.len(), expected);
        let all: Vec<usize> = (0..examples.len()).collect();
        let Inputs::Text(batch) = examples.batch(&all, &Device::flex()).unwrap() else {
            panic!("ListOps gives tokens")
        };
        let [_, padded] = batch.tokens.dims();
        let tokens: Vec<i32> = batch.tokens.into_data().convert::<i32>().try_to_vec().unwrap();
        let real: Vec<f32> = batch.real.into_data().try_to_vec().unwrap();
        for ((row, real), &label) in tokens.chunks(padded).zip(real.chunks(padded)).zip(examples.labels()) {
            let length = real.iter().sum::<f32>() as usize;
            assert!(real[..length].iter().all(|real| *real == 1.0));
            assert_eq!(row[0], 15); // the class token
            let symbols = &row[1..length];
            assert!((20..=63).contains(&symbols.len()));
            let text: Vec<&str> = symbols.iter().map(|&token| SYMBOLS[token as usize]).collect();
            let expression: Expression = text.join(" ").parse().unwrap();
            assert_eq!(u32::from(expression.value()), label);
            different.insert(expression);
        }
    }
    assert_eq!(different.len(), 500);
}

#[test]
fn a_model_too_short_for_a_test_expression_is_refused_before_it_is_trained() {
    let sizes = ListOps { shortest: 20, longest: 63, train: 1, validation: 1, test: 100, seed: 5 };
    let data = sizes.generate().unwrap();
    let length = |of: Reads| if let Reads::Text { length, .. } = of { length } else { panic!("ListOps gives tokens") };
    let [trained, tested] = [&data.train, &data.test].map(|examples| length(examples.needs().0));
    assert!(trained < tested, "the test split has the longest expression: {trained}, {tested}");
    let load = |length| {
        let input = EncoderInput::Tokens { length, vocabulary: 16 };
        let config = EncoderConfig { input, width: 8, layers: 1, heads: 1, mlp: 8, classes: 10 };
        Task::ListOps { sizes: sizes.clone() }.load(&Model::Encoder(config.init(1, &Device::flex())), None)
    };
    assert!(matches!(load(trained), Err(TaskError::Unfit { .. })));
    assert!(load(tested).is_ok());
}
