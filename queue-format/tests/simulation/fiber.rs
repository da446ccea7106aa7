use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Room for the deepest call of the code under test.
const STACK_BYTES: usize = 512 << 10;

thread_local! {
    static RUNNING: Cell<*const Yielder<(), Pause>> = const { Cell::new(std::ptr::null()) };
}

/// Why a process lets others run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pause {
    /// It is about to send a call.
    Turn,
    /// It wants to go on after this long.
    Sleep { ms: u64 },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Returned,
    Crashed,
}

/// One simulated process (or thread of one): ordinary code that stops wherever it meets the file system.
pub(crate) struct Fiber(Coroutine<(), Pause, End>);

/// The payload of the panic that stands for a crash.
struct Crash;

impl Fiber {
    pub(crate) fn new(stack: DefaultStack, code: impl FnOnce() + 'static) -> Self {
        Self(Coroutine::with_stack(stack, move |yielder, ()| {
            RUNNING.set(yielder);
            match catch_unwind(AssertUnwindSafe(code)) {
                Ok(()) => End::Returned,
                Err(payload) if is_crash(&*payload) => End::Crashed,
                Err(payload) => resume_unwind(payload),
            }
        }))
    }

    /// Runs it until it pauses or ends.
    pub(crate) fn resume(&mut self) -> Result<Pause, End> {
        match self.0.resume(()) {
            CoroutineResult::Yield(pause) => Ok(pause),
            CoroutineResult::Return(end) => Err(end),
        }
    }

    /// The stack of one that has ended, for the next.
    pub(crate) fn into_stack(self) -> DefaultStack {
        self.0.into_stack()
    }
}

/// A stack for a new process.
pub(crate) fn stack() -> DefaultStack {
    DefaultStack::new(STACK_BYTES).expect("memory for a stack")
}

/// Lets others run.
pub(crate) fn pause(pause: Pause) {
    let yielder = RUNNING.get();
    assert!(!yielder.is_null(), "only a process pauses");
    #[expect(
        unsafe_code,
        reason = "it lives on the stack of the fiber that runs now, which outlives this call"
    )]
    let yielder = unsafe { &*yielder };
    yielder.suspend(pause);
    RUNNING.set(yielder);
}

/// Ends the process here and now, as a loss of power would: what unwinds must touch no file.
pub(crate) fn crash() -> ! {
    resume_unwind(Box::new(Crash))
}

fn is_crash(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Crash>()
}
