package lockspace

import "testing"

// Nothing is held that the mirror does not cover; who is kept out by somebody
// outside of the table waits as for anybody else (design 1.6).
func TestMirror(t *testing.T) {
	tests := map[string]string{
		"who tries is refused, who waits waits": `
			mirror
			stranger x           -> got
			a try flock s        -> foreign
			a try excl           -> foreign
			a try link           -> foreign
			a try posix x 0-3    -> foreign
			b flock x            -> waits
			=                      | b
			stranger leaves      -> +b
			= b x`,
		"modes and ranges count": `
			mirror
			stranger s 0-3       -> got
			a try posix s 0-9    -> got
			a try posix x 2-9    -> foreign
			a try posix x 4-9    -> got
			= a s 0-3, a x 4-9
			stranger x 3-5       -> held
			stranger s 4-5       -> held
			stranger s 1-2       -> got`,
		"what is given back is free outside": `
			mirror
			a flock x            -> got
			stranger s           -> held
			a unflock            -> -a
			stranger s           -> got`,
		"a downgrade too": `
			mirror
			a flock x            -> got
			stranger s           -> held
			a flock s            -> got
			stranger s           -> got
			a try flock x        -> foreign
			= a s`,
		"one holder after the other, and nobody outside in between": `
			mirror
			a flock x            -> got
			b flock x            -> waits
			stranger x           -> held
			a close              -> -a +b
			stranger x           -> held`,
		"the order of the queue is kept": `
			mirror
			stranger s           -> got
			a flock x            -> waits
			b flock s            -> waits
			b' try flock s       -> held
			=                      | a b
			stranger leaves      -> +a
			= a x | b
			a close              -> -a +b`,
		"who waits can be interrupted, and lets others by": `
			mirror
			stranger s           -> got
			a flock x            -> waits
			b flock s            -> waits
			a interrupted        -> +b
			= b s | a~
			a flock x            -> waits
			stranger leaves      ->
			b close              -> -b +a`,
		"a conversion that has to wait loses what it converts": `
			mirror
			a flock s            -> got
			stranger s           -> got
			a flock x            -> waits -a
			=                      | a
			stranger leaves      -> +a`,
		"what takes time is asked for again": `
			mirror
			mirror closed        ->
			a flock x            -> lookup
			a try flock x        -> lookup
			mirror opened        ->
			a flock x            -> got`,
		"a mirror that fails": `
			mirror
			a flock s            -> got
			mirror breaks        ->
			a flock s            -> the mirror is broken
			b flock s            -> the mirror is broken
			b try flock x        -> held
			b flock x            -> waits
			a close              -> -a b:the mirror is broken
			mirror works         ->
			b flock x            -> got`,
		"waits that it refuses, one after the other": `
			mirror
			stranger x           -> got
			a flock s            -> waits
			b flock x            -> waits
			c flock s            -> waits
			mirror breaks        -> a:the mirror is broken b:the mirror is broken c:the mirror is broken
			=`,
		"in grace it is nobody's outside either": `
			mirror
			policy 0s 1s
			a flock s            -> got
			b flock s            -> got
			a killed             -> a(died)
			stranger x           -> held
			b close              -> -b
			stranger x           -> held
			pass 900ms           ->
			expire               ->
			stranger x           -> held
			pass 200ms           ->
			expire               ->
			stranger x           -> got`,
		"shutdown ends waits for strangers": `
			mirror
			stranger x           -> got
			a flock x            -> waits
			shutdown             -> a:shutdown
			=`,
		"what a name moves to is covered first": `
			mirror
			a try mkdir          -> got
			stranger x on M      -> got
			move L M             -> foreign
			= a x mkdir
			stranger leaves on M ->
			move L M             ->
			stranger x           -> got
			stranger x on M      -> held`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}
