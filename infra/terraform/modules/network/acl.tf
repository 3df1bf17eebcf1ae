# The data tier's own fence behind the security groups: TCP inside the VPC, nothing else, either way.
# The other tiers keep the VPC's default list, which allows all. A stateless list there would have to let answers in on
# every port from 1024 up (NAT uses them all), so it would guard nothing that the security groups do not.

resource "aws_network_acl" "data" {
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for subnet in values(aws_subnet.data) : subnet.id]
  tags       = { Name = "${var.name}-data" }
}

resource "aws_network_acl_rule" "data" {
  # Ports below 1024 serve nothing here: PostgreSQL 5432, Valkey 6379, Kafka 9098 and 11001-11002, answers above 32767.
  for_each = { ingress = false, egress = true }

  network_acl_id = aws_network_acl.data.id
  egress         = each.value
  rule_action    = "allow"
  rule_number    = 100
  protocol       = "tcp"
  cidr_block     = var.cidr
  from_port      = 1024
  to_port        = 65535
}
