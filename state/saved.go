package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Records that outlive a clean stop, within one boot of the machine. The file
//
//	0   16  savedMagic
//	16  36  boot id (random(4)), text
//	52  4   number of records, little endian like all that follows
//	    for each record
//	    1   kind
//	    8   number
//	    4   bytes of data
//	        data
//	end 32  SHA-256 of everything before
//
// means something once: who takes it up removes it before anything changes, so
// that a crash afterwards does not bring back what has ended since.
const (
	savedFile  = "saved"
	savedMagic = "lockfs saved\x00\x00\x00\x01"
	bootIDSize = 36
	// maxSaved is the longest file that is looked at, in bytes.
	maxSaved = 1 << 30
)

// Saved collects records for [Dir.Save]. The zero Saved is empty.
type Saved struct {
	records []Record
}

// Put adds a record, which the Saved keeps a copy of.
func (s *Saved) Put(kind Kind, id uint64, data []byte) {
	s.records = append(s.records, Record{kind, id, bytes.Clone(data)})
}

// Save writes records for the next start, in place of what was saved before.
func (d *Dir) Save(s *Saved) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	return d.replace(savedFile, encodeSaved(boot, s.records))
}

// Saved returns the records that the last clean stop saved. There are none
// after a crash, and if it was before the last boot of the machine. A file that
// is damaged or not lockfs's is set aside.
func (d *Dir) Saved() ([]Record, error) {
	b, err := d.read(savedFile, maxSaved)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	boot, records, err := decodeSaved(b)
	if err != nil {
		return nil, d.setAside(savedFile, "nothing is taken up from before the last stop")
	}
	now, err := bootID()
	if err != nil || boot != now {
		return nil, err
	}
	return records, nil
}

// DropSaved removes what was saved, when it is taken up. That there is nothing
// is no error.
func (d *Dir) DropSaved() error {
	err := d.remove(savedFile)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func encodeSaved(boot string, records []Record) []byte {
	b := append([]byte(savedMagic), boot...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(records)))
	for _, r := range records {
		b = append(b, r.Kind)
		b = binary.LittleEndian.AppendUint64(b, r.ID)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Data)))
		b = append(b, r.Data...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeSaved accepts what encodeSaved makes and nothing else.
func decodeSaved(b []byte) (boot string, records []Record, err error) {
	const head = len(savedMagic) + bootIDSize + 4
	if len(b) < head+sha256.Size || string(b[:len(savedMagic)]) != savedMagic {
		return "", nil, ErrFormat
	}
	b, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if want := sha256.Sum256(b); !bytes.Equal(sum, want[:]) {
		return "", nil, ErrFormat
	}
	boot = string(b[len(savedMagic) : len(savedMagic)+bootIDSize])
	n := binary.LittleEndian.Uint32(b[head-4:])
	b = b[head:]
	for ; n > 0; n-- {
		if len(b) < 13 {
			return "", nil, ErrFormat
		}
		r := Record{Kind: b[0], ID: binary.LittleEndian.Uint64(b[1:])}
		size := uint64(binary.LittleEndian.Uint32(b[9:]))
		if b = b[13:]; size > uint64(len(b)) || size > MaxRecord {
			return "", nil, ErrFormat
		}
		r.Data, b = b[:size], b[size:]
		records = append(records, r)
	}
	if len(b) > 0 {
		return "", nil, ErrFormat
	}
	return boot, records, nil
}

// bootID tells this run of the machine from others.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(b))
	if len(id) != bootIDSize {
		return "", fmt.Errorf("/proc/sys/kernel/random/boot_id: %q is not a boot id", id)
	}
	return id, nil
}
