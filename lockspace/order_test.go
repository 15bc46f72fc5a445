package lockspace

import "testing"

// Waits are served first come, first served (design 1.5).
func TestOrder(t *testing.T) {
	tests := map[string]string{
		"writers one by one": `
			a flock x      -> got
			b flock x      -> waits
			c flock x      -> waits
			d flock x      -> waits
			= a x | b c d
			a unflock      -> -a +b
			b unflock      -> -b +c
			c unflock      -> -c +d
			d unflock      -> -d
			=`,
		"readers enter together": `
			a flock x      -> got
			b flock s      -> waits
			c flock s      -> waits
			d flock s      -> waits
			a unflock      -> -a +b +c +d`,
		"readers stand behind a writer, and enter after it": `
			a flock s      -> got
			b flock x      -> waits
			c flock s      -> waits
			d flock s      -> waits
			e flock x      -> waits
			f flock s      -> waits
			= a s | b c d e f
			a unflock      -> -a +b
			b unflock      -> -b +c +d
			c unflock      -> -c
			d unflock      -> -d +e
			e unflock      -> -e +f`,
		"a try fails where a wait would stand behind another": `
			a flock s      -> got
			b flock x      -> waits
			c try flock s  -> held
			c try posix s 0-0 -> held
			c test posix s 0-0 -> free   # F_GETLK sees holds only
			a unflock      -> -a +b`,
		"a creation fails on waits' holds, too": `
			a flock x      -> got
			b flock x      -> waits
			c try excl     -> held
			a close        -> -a +b
			c excl         -> held`,
		"whoever is not in the way of those before him enters": `
			a posix x 0-9  -> got
			b posix x 5-14 -> waits
			c posix x 15-  -> got
			d posix s 10-14 -> waits  # behind b
			e posix s 0-4  -> waits
			= a x 0-9, c x 15- | b d e
			a unposix 0-4  -> +e
			a unposix 5-9  -> -a +b
			b close        -> -b +d`,
		"a shared batch over ranges": `
			a posix x 0-   -> got
			b posix s 0-4  -> waits
			c posix s 3-9  -> waits
			d posix x 9-9  -> waits
			e posix s 10-  -> waits
			a close        -> -a +b +c +e
			c close        -> -c +d`,
		"a grant that downgrades lets in who waited before it": `
			a posix x 0-0  -> got
			c posix x 1-1  -> got
			b posix s 0-0  -> waits
			a posix s 0-1  -> waits     # for c; until then a keeps its byte 0
			= a x 0-0, c x 1-1 | b a
			c close        -> -c +a +b`,
		"all idioms in one queue": `
			a excl         -> got
			b flock s      -> waits
			c posix s 0-9  -> waits
			d ofd x 5-     -> waits
			e flock s      -> waits
			a close        -> -a +b +c
			b close        -> -b
			c close        -> -c +d
			d close        -> -d +e`,
		"the name does not become free while the lock changes hands": `
			a excl         -> got
			b flock x      -> waits
			a close        -> -a +b
			c excl         -> held
			b close        -> -b
			c excl         -> got`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// A holder that asks for more is let past those who wait for it: a queue makes
// no deadlock that plain locks do not have.
func TestPassing(t *testing.T) {
	tests := map[string]string{
		"a reader reads more past a writer that waits for it": `
			a posix s 0-4  -> got
			b posix x 0-9  -> waits
			a posix s 5-9  -> got
			a close        -> -a +b`,
		"by a try, too": `
			a posix s 0-4  -> got
			b posix x 0-9  -> waits
			c try posix s 5-9 -> held
			a try posix s 5-9 -> got`,
		"not past a writer that waits for others": `
			a posix s 20-  -> got
			b posix s 0-4  -> got
			c posix x 0-9  -> waits
			a posix s 5-9  -> waits
			b close        -> -b +c
			c close        -> -c +a`,
		"past several, who wait for one another": `
			a posix s 0-0  -> got
			b posix x 0-5  -> waits
			c posix x 5-9  -> waits      # behind b, who waits for a
			a posix s 9-9  -> got
			a close        -> -a -a +b
			b close        -> -b +c`,
		"past one, to wait for a holder": `
			a posix s 0-0  -> got
			d posix x 9-9  -> got
			b posix x 0-9  -> waits
			a posix s 9-9  -> waits
			d close        -> -d +a`,
		"across locks": `
			a posix x 0-0  -> got
			c posix x 0-0 on M -> got
			d posix x 0-9 on M -> waits   # for c
			c posix x 0-0  -> waits       # for a: and so d waits for a
			a posix s 5-5 on M -> got
			b try posix s 5-5 on M -> held`,
		"across locks, when the dependence comes after the wait": `
			a posix x 0-0  -> got
			c posix x 0-0 on M -> got
			d posix x 0-9 on M -> waits
			a posix s 5-5 on M -> waits   # behind d, who does not wait for a
			c posix x 0-0  -> waits +a    # now he does`,
		"for handles: an upgrade past a writer": `
			a flock s      -> got
			b flock x      -> waits
			a flock x      -> got
			= a x | b
			a close        -> -a +b`,
		"for processes: fcntl beside its own flock": `
			a flock s      -> got
			b flock x      -> waits
			a' posix s 0-9 -> got
			a close        -> -a' -a +b   # any close gives fcntl locks back`,
		"for processes: after its flock came out of the queue": `
			z flock x      -> got
			a' flock s     -> waits
			b posix x 0-   -> waits
			a posix s 0-0  -> waits
			z close        -> -z +a' +a
			a close        -> -a
			a' close       -> -a' +b`,
		"for processes: also for who stands before it in the queue": `
			c posix x 1-1  -> got
			b posix s 0-0  -> got
			a flock x      -> waits
			a interrupted  ->
			d posix s 1-1  -> waits     # for c
			a flock x      -> waits     # back in front of d
			d@b flock s    -> waits     # for c; a waits for b's handle
			c close        -> -c +d@b +d`,
		"asking again by somebody else who has the handle": `
			a flock s      -> got
			b posix s 0-9  -> got
			a' posix x 0-9 -> waits     # for b, not for a
			c@a flock s    -> got
			= a s, b s 0-9 | a'`,
		"past one who waits for another of his own process": `
			b posix s 0-0  -> got
			c posix x 0-1  -> waits     # for b
			a posix s 0-0 on M -> got
			d posix s 0-1  -> waits     # behind c
			c' posix x 1-1 -> waits     # behind d
			a posix s 0-1  -> waits     # behind both
			b posix x 0-0 on M -> waits +a`,
		"asking again never waits": `
			a flock s      -> got
			c flock s      -> got
			b flock x      -> waits
			a flock s      -> got
			a try flock s  -> got
			c posix s 0-0  -> got
			c posix s 0-0  -> got
			= a s, c s, c s 0-0 | b`,
		"nor does a downgrade": `
			a posix x 0-9  -> got
			b posix s 0-9  -> waits
			c posix x 0-9  -> waits
			a posix s 2-3  -> got
			a posix s 0-9  -> got +b
			= a s 0-9, b s 0-9 | c`,
		"a downgrade of flock": `
			a flock x      -> got
			b flock s      -> waits
			c flock x      -> waits
			d flock s      -> waits
			a flock s      -> got +b
			= a s, b s | c d`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// A process with several threads waits in several places at once. When one of
// its waits becomes a hold, those who stand behind it wait for the process,
// and with it for what its other threads wait for.
func TestPassingByThreads(t *testing.T) {
	tests := map[string]string{
		"a grant lets the other thread's wait pass on another lock": `
			e posix x 0-0       -> got
			z posix x 5-5 on M  -> got
			q posix x 7-7 on M  -> got
			p posix x 0-0       -> waits     # for e
			q posix x 0-9       -> waits     # behind p
			y posix x 5-9 on M  -> waits     # for z, and for q, who stands behind p
			p' posix s 6-6 on M -> waits     # behind y: p holds nothing yet
			e close             -> -e +p +p' # q waits for p now, and so does y`,
		"and on the same lock, before others behind": `
			e posix x 0-0       -> got
			z posix x 5-5       -> got
			q posix x 7-7       -> got
			y posix x 5-9       -> waits     # for z and q
			p' posix s 6-6      -> waits     # behind y: p holds nothing yet
			p posix x 0-0       -> waits     # for e
			q posix x 0-1       -> waits     # behind p: so does y
			f posix x 20-       -> got
			e close             -> -e +p +p'`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// flock(2): a conversion that has to wait loses the lock it converts; one that
// must not wait and fails keeps it.
func TestFlockConversion(t *testing.T) {
	tests := map[string]string{
		"upgrade, alone": `
			a flock s      -> got
			a flock x      -> got
			= a x`,
		"upgrade beside a reader gives the old lock back": `
			a flock s      -> got
			b flock s      -> got
			a flock x      -> waits -a
			= b s | a
			b close        -> -b +a`,
		"two upgrades: no deadlock, the second gets in first": `
			a flock s      -> got
			b flock s      -> got
			a flock x      -> waits -a
			b flock x      -> got
			b unflock      -> -b +a`,
		"what it gives back lets another in": `
			a flock s      -> got
			b posix s 0-0  -> got
			c posix x 5-9  -> waits
			a flock x      -> waits -a +c
			= b s 0-0, c x 5-9 | a`,
		"a try that fails keeps it": `
			a flock s      -> got
			b flock s      -> got
			a try flock x  -> held
			= a s, b s`,
		"interrupted, it has lost it": `
			a flock s      -> got
			b flock s      -> got
			a flock x      -> waits -a
			a interrupted  ->
			= b s | a~`,
		"flock does not convert a creation": `
			a excl         -> got
			a flock s      -> got
			= a x, a s
			a unflock      -> -a
			= a x`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}
