package mirror

// Opening is how the file of a lock is opened. The zero Opening is [Backing.Open].
type Opening struct {
	Way OpenWay
	// Known is what was made under the lock's name, if anything was.
	Known MadeName
}

// OpenWay is one of the ways to open the file of a lock.
type OpenWay uint8

const (
	// OpenAny is [Backing.Open].
	OpenAny OpenWay = iota
	// OpenLock is [Backing.OpenLock], where names are held by being there.
	OpenLock
	// OpenMade is [Backing.OpenMade], of what holds its name.
	OpenMade
)

// Opener returns what opens a file so, for [Config.Opener].
func (b *Backing) Opener(o Opening) func(path string, uid, gid uint32) (Opened, error) {
	switch o.Way {
	case OpenMade:
		return func(string, uint32, uint32) (Opened, error) { return b.OpenMade(o.Known) }
	case OpenLock:
		return func(path string, uid, gid uint32) (Opened, error) { return b.OpenLock(path, o.Known, uid, gid) }
	}
	return nil
}
