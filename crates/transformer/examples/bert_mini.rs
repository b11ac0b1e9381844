//! Times steps of BERT-mini one by one, as `scripts/peers/bert_mini.py` asks for them: each line on stdin is `forward` or
//! `train` and `dense`, `whole`, `composed` or `blocks`; the answer on stdout is how many seconds that took. The one argument is a
//! backend, flex without it.

#[path = "../benches/bert_mini/steps.rs"]
mod steps;

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{self, Write},
    time::Instant,
};

use maskwright_transformer::Backend;
use steps::{Way, forward, train};

fn main() -> Result<(), Box<dyn Error>> {
    let backend = env::args().nth(1).unwrap_or_else(|| Backend::Flex.to_string());
    let backend = Backend::ALL.into_iter().find(|known| known.name() == backend).ok_or("no such backend")?;
    let device = backend.device()?;
    let mut ready: BTreeMap<String, Box<dyn FnMut()>> = BTreeMap::new();
    for line in io::stdin().lines() {
        let line = line?;
        if !ready.contains_key(&line) {
            let (step, way) = line.split_once(' ').ok_or("a line is a step and a way")?;
            let way = Way::ALL.into_iter().find(|known| known.name() == way).ok_or("no such way")?;
            let run: Box<dyn FnMut()> = match step {
                "forward" => Box::new(forward(way, device.clone())),
                "train" => Box::new(train(way, device.clone())),
                _ => return Err("no such step".into()),
            };
            ready.insert(line.clone(), run);
        }
        let run = ready.get_mut(&line).expect("it has just been put there");
        let begun = Instant::now();
        run();
        writeln!(io::stdout(), "{}", begun.elapsed().as_secs_f64())?;
    }
    Ok(())
}
