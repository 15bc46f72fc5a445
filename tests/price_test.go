package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What it costs that a worker can be killed: a lock call beside the same on a
// daemon that keeps nothing.

const (
	// price is how much longer a lock call may take.
	price       = 1.15
	priceRounds = 10_000
)

func TestThePriceOfSurvivingIsLow(t *testing.T) {
	volatile := filepath.Join(t.TempDir(), "lockfs")
	if err := os.Chmod(filepath.Dir(volatile), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"build", "-tags", "volatile", "-o", volatile}
	if raceEnabled {
		args = append(args, "-race")
	}
	if err := runQuietly("go", append(args, modulePath+"/cmd/lockfs")...); err != nil {
		t.Fatal(err)
	}
	surviving, without := mount(t), mountOf(t, volatile)
	for _, idiom := range []string{"excl", "flock", "fcntl"} {
		out := onOneCPU(t, append(daemonPids(surviving), daemonPids(without)...),
			program(t, "onemore"), idiom, fmt.Sprint(stressed(priceRounds)), surviving.Path("x"), without.Path("x"))
		var with, bare int
		if _, err := fmt.Sscan(out, &with, &bare); err != nil {
			t.Fatalf("onemore printed %q", out)
		}
		ratio := float64(with) / float64(bare)
		t.Logf("%s: %v, and %v in a daemon that does not survive: %.3f times", idiom, time.Duration(with), time.Duration(bare), ratio)
		if ratio > price && !raceEnabled {
			t.Errorf("%s takes %.3f times as long, want at most %v", idiom, ratio, price)
		}
	}
}
