// Package agent is a [mirror.Mirror] in a process of its own, the agent, for
// directories that may not answer: on a network filesystem whose server is gone, a
// call hangs, and the process that makes it cannot even be killed. So the agent
// makes them, and who keeps the lock table (the worker) only talks to it: whatever
// hangs, hangs there, and what is held there stays locked when workers come and go.
//
// [Serve] is the agent. [Client] is what a worker has of it: it does for a table
// what a mirror.Mirror does, but for never making a call that could hang.
//
// # How a lock is covered
//
// What a request needs is asked for on a detour, by a COVER with a number. The agent
// locks it, and keeps it as a pin of that number. When the answer has been taken in
// (Adopt), Cover finds that it is there, and the table grants. After the step has
// been recorded the worker sends the STATE of the lock: what is held; who awaits what
// of it, under numbers of their own; which COVERs it has not taken in yet; and the
// last number that it had given out. The agent makes that what is locked: pins up to
// that number are dropped, but for those that it names. So nothing is given back that
// an answer on its way has promised, in whatever order the two pass each other, and
// an answer that nobody wants any more costs no lock for longer than until the next
// STATE.
//
// An await is a COVER that may take for ever: the agent pins what it comes to have,
// and says so (GOT). In the agent's step that makes a STATE true, awaits come first,
// then what is not held any more goes: a lock that is given from one to the next is
// never free between them.
//
// A STATE is always the present one: if several of a lock wait to be sent, or to be
// carried out, there is only the last. Steps of the worker never wait for the agent,
// nor for room in the socket.
//
// # Names
//
// What is held by its name the agent makes, shows, writes and removes, see names.go. A
// MAKE opens a file and locks it, the COVER after it gives that to the mirror, and while a
// REMOVE is not answered the STATE of the lock goes on to say that it is held.
//
// # Taking over
//
// The agent's socket outlives the worker: somebody else keeps a copy of the
// worker's end. A new worker says HELLO, with the version of the protocol and a
// number that marks all that is said from then on (the epoch), says what has been made
// (KNOW), sends the STATE of everything that is held, and then ALL. Until then nothing that
// was locked is given back; then all is, that is not held. What the agent says to an epoch
// that is over is ignored. If it is the agent that ended, another is begun with in the same way: it
// locks what is still free, and what is not is lost, as [mirror.ErrTaken].
//
// The agent ends when all copies of the worker's end are closed, and with it all its
// locks.
//
// # Caveats
//
// What is given back is free for strangers a moment after its holder has been told,
// and not before: nobody waits for the agent.
//
// Between the end of an agent and the beginning of the next its locks are free for
// strangers, and files that hold their names are taken for left behind by other mounts.
// That needs somebody to kill it. If it hung just then in a call that makes something
// under a temporary name, that may be there later, and nobody removes it.
//
// An agent of another version of the protocol is of no use: it is ended, and another
// is begun with, as above.
package agent
