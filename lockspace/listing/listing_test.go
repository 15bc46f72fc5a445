package listing

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// From every place on, a list has what a sorted map has, and no more removed
// slots than things.
func TestList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list List[uint64]
		there := make(map[uint64]*uint64)
		last := uint64(0)
		come := func() uint64 {
			last += rapid.Uint64Range(1, 3).Draw(t, "distance")
			there[last] = new(last)
			return last
		}
		// Some come in any order, as out of records.
		var places []uint64
		for range rapid.IntRange(0, 9).Draw(t, "restored") {
			places = append(places, come())
		}
		list.Grow(len(places))
		for _, place := range rapid.Permutation(places).Draw(t, "order") {
			list.Add(place, there[place])
		}
		list.Sort()
		t.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				place := come()
				list.Add(place, there[place])
			},
			"remove": func(t *rapid.T) {
				for _, place := range slices.Sorted(maps.Keys(there)) {
					if rapid.Bool().Draw(t, "goes") {
						list.Remove(place)
						delete(there, place)
					}
				}
			},
			"": func(t *rapid.T) {
				want := slices.Sorted(maps.Keys(there))
				for after := range last + 2 {
					var got []uint64
					for place, thing := range list.After(after) {
						if thing != there[place] {
							t.Fatalf("%d is at %d", *thing, place)
						}
						got = append(got, place)
					}
					from, _ := slices.BinarySearch(want, after+1)
					if !slices.Equal(got, want[from:]) {
						t.Fatalf("behind %d are %d, want %d", after, got, want[from:])
					}
				}
				n := 0
				for thing := range list.All() {
					if n >= len(want) || *thing != want[n] {
						t.Fatalf("%d is there, want %d", *thing, want)
					}
					n++
				}
				end := uint64(0)
				if len(want) > 0 {
					end = want[len(want)-1]
				}
				if n != len(want) || list.Last() != end {
					t.Fatalf("%d are there and the last is %d, want %d", n, list.Last(), want)
				}
				if gone := len(list.slots) - n; gone != list.removed || gone > n {
					t.Fatalf("%d of %d slots are removed, counted are %d", gone, len(list.slots), list.removed)
				}
			},
		})
	})
}

// Who stops listing is given no more.
func TestStop(t *testing.T) {
	var list List[int]
	for place := range 3 {
		list.Add(uint64(place+1), new(int))
	}
	n := 0
	for range list.All() {
		n++
		break
	}
	for range list.After(1) {
		n++
		break
	}
	if n != 2 {
		t.Fatalf("%d were given, want 2", n)
	}
}
