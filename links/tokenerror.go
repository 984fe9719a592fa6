// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"

	"github.com/shoalnet/shoal"
)

// TokenFault says what is wrong with a token, or with joining by it.
type TokenFault string

// The faults.
const (
	TokenMalformed   TokenFault = "not a token"
	TokenTruncated   TokenFault = "token is cut off"
	TokenChecksum    TokenFault = "token has a wrong checksum"
	TokenExpired     TokenFault = "token has expired"
	TokenUsed        TokenFault = "token is used up"
	TokenRevoked     TokenFault = "token was revoked"
	TokenUnknown     TokenFault = "token is not known to the cluster"
	TokenForeign     TokenFault = "token belongs to another cluster than the peer that answered"
	TokenOwn         TokenFault = "token leads to this peer itself"
	TokenElsewhere   TokenFault = "already a member of another cluster"
	TokenMember      TokenFault = "already a member of this cluster"
	TokenUnreachable TokenFault = "no peer of the token can be reached"
	TokenRefused     TokenFault = "no peer of the token would admit this one"
)

// advice is what to do about each fault.
func (f TokenFault) advice() string {
	switch f {
	case TokenMalformed, TokenTruncated, TokenChecksum:
		return "copy it whole, it begins with \"" + tokenPrefix + "\""
	case TokenExpired, TokenUsed, TokenRevoked, TokenUnknown:
		return "make a new one on a member: shoal token create"
	case TokenForeign:
		return "check which cluster the token came from"
	case TokenOwn:
		return "run \"shoal join\" on the machine that is to be added"
	case TokenElsewhere:
		return "run \"shoal leave\" first"
	case TokenMember:
		return "nothing to do"
	case TokenUnreachable:
		return "check that the member runs and that its port is open to this machine"
	default:
		return "try again, or make a token on another member"
	}
}

// TokenError is a token that does not work, or a join that was refused.
type TokenError struct {
	Fault  TokenFault
	Detail string // more about it, "" if there is none
}

func tokenError(f TokenFault, format string, args ...any) *TokenError {
	return &TokenError{Fault: f, Detail: fmt.Sprintf(format, args...)}
}

// Error returns "FAULT: DETAIL; ADVICE".
func (e *TokenError) Error() string {
	text := string(e.Fault)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text + "; " + e.Fault.advice()
}

// Unwrap maps the fault to the root's errors: what cannot be read is a
// *shoal.InvalidError, a second cluster shoal.ErrConflict, an unreachable one
// shoal.ErrUnreachable, everything else shoal.ErrRefused.
func (e *TokenError) Unwrap() error {
	switch e.Fault {
	case TokenMalformed, TokenTruncated, TokenChecksum:
		return &shoal.InvalidError{Field: "token", Why: string(e.Fault)}
	case TokenElsewhere, TokenMember:
		return shoal.ErrConflict
	case TokenUnreachable:
		return shoal.ErrUnreachable
	default:
		return shoal.ErrRefused
	}
}
