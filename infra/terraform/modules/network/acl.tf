# Network ACLs: the coarse, stateless fence behind the security groups. The data tier talks to the VPC only.

resource "aws_network_acl" "workload" {
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for subnet in concat(values(aws_subnet.public), values(aws_subnet.private)) : subnet.id]
  tags       = { Name = "${var.name}-workload" }
}

resource "aws_network_acl" "data" {
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for subnet in values(aws_subnet.data) : subnet.id]
  tags       = { Name = "${var.name}-data" }
}

locals {
  # Stateless: answers to connections through NAT come back to any port from 1024 up. Cutting out 3389, as linters
  # like, would hang one outgoing connection in about 64,000; the security groups are what closes it.
  workload_ingress = {
    vpc     = { number = 100, protocol = "-1", cidr = var.cidr, from = 0, to = 0 }
    https   = { number = 110, protocol = "tcp", cidr = "0.0.0.0/0", from = 443, to = 443 }
    http    = { number = 120, protocol = "tcp", cidr = "0.0.0.0/0", from = 80, to = 80 }
    answers = { number = 130, protocol = "tcp", cidr = "0.0.0.0/0", from = 1024, to = 65535 }
  }
}

resource "aws_network_acl_rule" "workload_ingress" {
  for_each = local.workload_ingress

  network_acl_id = aws_network_acl.workload.id
  egress         = false
  rule_action    = "allow"
  rule_number    = each.value.number
  protocol       = each.value.protocol
  cidr_block     = each.value.cidr
  from_port      = each.value.from
  to_port        = each.value.to
}

resource "aws_network_acl_rule" "workload_egress" {
  network_acl_id = aws_network_acl.workload.id
  egress         = true
  rule_action    = "allow"
  rule_number    = 100
  protocol       = "-1"
  cidr_block     = "0.0.0.0/0"
  from_port      = 0
  to_port        = 0
}

resource "aws_network_acl_rule" "data" {
  for_each = { ingress = false, egress = true }

  network_acl_id = aws_network_acl.data.id
  egress         = each.value
  rule_action    = "allow"
  rule_number    = 100
  protocol       = "-1"
  cidr_block     = var.cidr
  from_port      = 0
  to_port        = 0
}
